"""The inspector page: self-contained, complete, and deaf to what names try to say."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cimc.report import chip_map, html, inspect, jsontext, layers, manifest_file, palette, render
from tests.report import synthetic

EVIL = '</script><img src=x onerror="alert(1)">{{ 7 * 7 }}\x1b'


class Page(HTMLParser):
    """Collects start tags with attributes, and the text of the data element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside = ""
        self.data = ""
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id") or "" if tag == "script" else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "data":
            self.data += data
        self.words.append(data)

    def count(self, tag: str, name: str | None = None) -> int:
        return sum(1 for t, a in self.tags if t == tag and (name is None or name in (a.get("class") or "").split()))


def build(directory: Path) -> Page:
    return Page(html.page(layers.load(directory), manifest_file.read_manifest(directory / "manifest.json")))


def test_everything_is_on_the_page(tmp_path: Path) -> None:
    directory = synthetic.write_directory(tmp_path / "out")
    inspection, page = layers.load(directory), build(directory)
    assert page.count("g", "t") == len(inspection.mapping.tiles)
    assert page.count("tr") >= 1 + len(inspection.layers)
    stripes = sum(1 for parts in inspection.contents.values() for c in parts for _ in (1,) if c.crossbars or c.products)
    assert page.count("rect", "s") == stripes
    data = json.loads(page.data)
    assert [x["name"] for x in data["layers"]] == [layer.name for layer in inspection.layers]
    assert set(data["tiles"]) == {str(t.id) for t in inspection.mapping.tiles}
    words = " ".join(page.words)
    for text in ("119 µs", "1.61 mJ", "model.sha256", "/pooler/dense/Gemm", "384×1536"):
        assert text in words


def test_stripes_are_as_high_as_the_crossbars_they_take(tmp_path: Path) -> None:
    page = build(synthetic.write_directory(tmp_path / "out"))
    at = next(i for i, (tag, a) in enumerate(page.tags) if tag == "g" and a.get("data-t") == "2")
    heights = []
    for tag, attributes in page.tags[at + 1 :]:
        if attributes.get("data-t"):
            break
        if tag == "rect" and "s" in (attributes.get("class") or "").split():
            heights.append(float(attributes["height"] or 0))
    # One block of the query's nine overflows from tile 1, then seven of the key's: eight cores in all.
    assert heights == [chip_map.TILE / 8, chip_map.TILE * 7 / 8]


def test_needs_no_network(tmp_path: Path) -> None:
    text = html.page(layers.load(synthetic.write_directory(tmp_path / "out")))
    page = Page(text)
    assert not any(name in attributes for _, attributes in page.tags for name in ("src", "href"))
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert text.count("url(") == text.count("url(#tile)")
    policy = next(a["content"] or "" for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_names_are_text(tmp_path: Path) -> None:
    dump = synthetic.mapping(1)
    dump["hardware"] = EVIL
    for entry in (*dump["static"], *dump["dynamic"]):
        entry.update(node=EVIL, origin=EVIL)
    dump["static"][0]["weight"] = EVIL
    dump["host"][0].update(node=EVIL, reason=EVIL, op_type=EVIL)
    for tile in dump["tiles"]:
        tile["kind"] = EVIL
    jsontext.write(dump, tmp_path / "mapping.json")
    (tmp_path / "manifest.json").write_text(json.dumps({EVIL: EVIL}))
    page = build(tmp_path)
    assert page.count("img") == 0
    assert page.count("script") == 2
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert EVIL in page.words
    assert json.loads(page.data)["layers"][0]["name"].startswith("</script><img")


def test_without_a_run_the_page_says_how_to_get_one(tmp_path: Path) -> None:
    page = build(synthetic.write_directory(tmp_path / "out", run=False))
    assert "cimc run DIR" in page.words
    assert page.count("span", "gantt") == 0


def test_the_page_is_the_same_every_time(tmp_path: Path) -> None:
    directory = synthetic.write_directory(tmp_path / "out")
    assert html.page(layers.load(directory)) == html.page(layers.load(directory))


def test_colours_differ() -> None:
    colours = [palette.layer_colour(i, 74) for i in range(74)]
    assert len(set(colours)) == 74
    assert palette.layer_colour(0, 1) == colours[0]


@pytest.mark.parametrize(
    ("lightness", "chroma", "degrees", "colour"),
    [
        (0.6279554, 0.2576833, 29.2338803, "#ff0000"),
        (0.4520137, 0.3132144, 264.0520206, "#0000ff"),
        (1, 0, 0, "#ffffff"),
    ],
)
def test_conversion_from_oklch(lightness: float, chroma: float, degrees: float, colour: str) -> None:
    """The sRGB primaries as CSS Color Module Level 4 lists them."""
    assert palette.srgb_hex(lightness, chroma, math.radians(degrees)) == colour


def test_the_row_of_no_layer_is_explained(tmp_path: Path) -> None:
    directory = synthetic.write_directory(tmp_path / "out")
    path = directory / "run.json"
    content = json.loads(path.read_text())
    assert layers.SYNCHRONISED not in " ".join(build(directory).words)
    content["layers"][""] = next(iter(content["layers"].values()))
    path.write_text(json.dumps(content))
    assert layers.SYNCHRONISED in " ".join(build(directory).words)
    assert layers.SYNCHRONISED in render.plain(inspect.report(layers.load(directory)))
