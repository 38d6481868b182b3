"use strict";
// Highlights layers and tiles, shows their details, sorts and filters the table. Writes text only, never markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const detail = document.getElementById("detail");
  const idle = [...detail.childNodes];
  const body = document.querySelector("#layers tbody");
  const rows = [...body.rows];
  const tiles = new Map([...document.querySelectorAll(".t")].map(g => [g.dataset.t, g]));
  const stripes = [...document.querySelectorAll(".s")];
  let pinned = null;

  const element = (tag, text, name) => {
    const e = document.createElement(tag);
    if (text !== undefined) e.textContent = text;
    if (name) e.className = name;
    return e;
  };
  const title = (layer, tag) => {
    const e = element(tag || "div", undefined, "detail-name");
    const swatch = element("span", undefined, "swatch");
    swatch.style.background = layer.colour;
    e.append(swatch, element("span", layer.name));
    return e;
  };
  const facts = pairs => {
    const list = element("dl", undefined, "facts");
    for (const [key, value] of pairs) list.append(element("dt", key), element("dd", value));
    return list;
  };

  function layerDetail(i) {
    const layer = data.layers[i];
    const parts = [element("h2", "Layer"), title(layer), facts(layer.facts)];
    if (layer.tiles.length) {
      const chips = element("div", undefined, "chips");
      for (const id of layer.tiles) {
        const button = element("button", String(id));
        button.addEventListener("click", () => pin({ tile: String(id) }));
        chips.append(button);
      }
      parts.push(element("h3", `On ${layer.tiles.length} ${layer.tiles.length === 1 ? "tile" : "tiles"}`), chips);
    }
    if (layer.energy.length) {
      const bars = element("div", undefined, "bars");
      for (const [name, value, share] of layer.energy) {
        const track = element("span", undefined, "track");
        const bar = element("i");
        bar.style.width = `${share}%`;
        track.append(bar);
        bars.append(element("span", name), track, element("span", value, "num"), element("span", ""));
      }
      parts.push(element("h3", "Energy"), bars);
    }
    detail.replaceChildren(...parts);
  }

  function tileDetail(id) {
    const tile = data.tiles[id];
    const parts = [element("h2", `Tile ${id}`)];
    parts.push(facts([["kind", tile.kind], ["place", tile.place], ["crossbars used", tile.used]]));
    if (!tile.parts.length) parts.push(element("p", "Nothing lies on it.", "muted"));
    for (const part of tile.parts) {
      const box = element("div", undefined, "part");
      const head = title(data.layers[part.layer]);
      head.addEventListener("click", () => pin({ layer: part.layer }));
      const list = element("ul");
      const shown = part.blocks.slice(0, 24);
      for (const block of shown) list.append(element("li", block));
      if (part.blocks.length > shown.length) list.append(element("li", `… and ${part.blocks.length - shown.length} more`));
      box.append(head, list);
      parts.push(box);
    }
    detail.replaceChildren(...parts);
  }

  function show(pick) {
    const layers = new Set();
    const held = new Set();
    if (pick && pick.layer !== undefined) {
      layers.add(pick.layer);
      for (const id of data.layers[pick.layer].tiles) held.add(String(id));
      layerDetail(pick.layer);
    } else if (pick) {
      held.add(pick.tile);
      for (const part of data.tiles[pick.tile].parts) layers.add(part.layer);
      tileDetail(pick.tile);
    } else {
      detail.replaceChildren(...idle);
    }
    document.body.classList.toggle("picking", layers.size > 0);
    for (const s of stripes) s.classList.toggle("on", layers.has(Number(s.dataset.l)));
    for (const [id, g] of tiles) g.classList.toggle("on", held.has(id));
    for (const row of rows) row.classList.toggle("on", layers.has(Number(row.dataset.l)));
  }
  function pin(pick) {
    pinned = pick;
    show(pinned);
    try {
      history.replaceState(null, "", pick ? (pick.tile !== undefined ? `#tile=${pick.tile}` : `#layer=${pick.layer}`) : "#");
    } catch { /* some browsers refuse on file: pages; the page works without */ }
  }

  const listen = (target, pick) => {
    target.addEventListener("mouseenter", () => { if (!pinned) show(pick); });
    target.addEventListener("mouseleave", () => { if (!pinned) show(null); });
    target.addEventListener("click", () => pin(JSON.stringify(pinned) === JSON.stringify(pick) ? null : pick));
    target.addEventListener("keydown", event => { if (event.key === "Enter") pin(pick); });
  };
  for (const [id, g] of tiles) listen(g, { tile: id });
  for (const row of rows) listen(row, { layer: Number(row.dataset.l) });
  document.addEventListener("keydown", event => { if (event.key === "Escape") pin(null); });

  const heads = [...document.querySelectorAll("#layers thead th")];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const numeric = head.dataset.k === "n";
    const was = head.getAttribute("aria-sort");
    const down = was ? was === "ascending" : numeric && column > 0 && !head.classList.contains("when");
    heads.forEach(h => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => numeric ? Number(row.cells[column].dataset.v) : row.cells[column].textContent;
    const order = (a, b) => numeric ? value(a) - value(b) : value(a).localeCompare(value(b), undefined, { numeric: true });
    rows.sort((a, b) => (down ? -1 : 1) * order(a, b) || a.dataset.l - b.dataset.l);
    body.append(...rows);
  }));

  const filter = document.getElementById("filter");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = `${row.cells[1].textContent} ${row.cells[2].textContent}`.toLowerCase();
      row.hidden = !words.every(w => text.includes(w));
      if (!row.hidden) shown += 1;
    }
    document.getElementById("count").textContent = shown === rows.length ? shown : `${shown} of ${rows.length}`;
  });

  const start = /^#(tile|layer)=(\d+)$/.exec(location.hash);
  if (start && start[1] === "tile" && data.tiles[start[2]]) pin({ tile: start[2] });
  if (start && start[1] === "layer" && data.layers[Number(start[2])]) pin({ layer: Number(start[2]) });
})();
