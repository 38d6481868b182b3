"""A made-up but self-consistent mapping and run: 16 × 13 tiles, a transformer encoder of 6 layers on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cimc.arch.spec import ChipSpec, CoreSpec, CrossbarSpec, HostSpec, MemorySpec, NocSpec, TileSpec
from cimc.origin import Origin
from cimc.sim.result import Bound, Cost, Event, RunResult, Timing

COLUMNS, ROWS = 16, 13
CORES, SLICES = 8, 8  # of a CIM tile; crossbars = CORES · SLICES
BLOCK = 128


def kind(tile: int) -> str:
    """I/O tiles in the first column's ends, every eighth tile digital, the rest CIM."""
    if tile in (0, COLUMNS * (ROWS - 1)):
        return "io"
    return "digital" if tile % 8 == 7 else "cim"


def chip() -> ChipSpec:
    """A chip with the layout of :func:`mapping` and crossbars of 128 × 160 cells; it has no costs, so unvalidated."""
    core = CoreSpec(
        crossbar=CrossbarSpec(rows=BLOCK, cols=160, cell_bits=1, active_rows=BLOCK),
        weight_bits=8,
        encoding="offset",
        dac_bits=1,
        step_ns=1.0,
        shift_add_ns=0.0,
        fill_ns=0.0,
        write_row_ns=0.0,
        verify_iterations=1,
    )
    tiles = {
        "cim": TileSpec(letter="C", local_bytes=1024, cores=CORES, core=core),
        "digital": TileSpec(letter="D", local_bytes=1024),
        "io": TileSpec(letter="I", local_bytes=1024, memory_port=True),
    }
    return ChipSpec.model_construct(
        name="synthetic-16x13",
        description="made up",
        technology="ideal",
        clock_ghz=1.0,
        layout=tuple("".join(tiles[kind(y * COLUMNS + x)].letter for x in range(COLUMNS)) for y in range(ROWS)),
        tiles=tiles,
        noc=NocSpec(flit_bytes=1, router_cycles=1, link_bytes_per_cycle=1, channel_bytes=1),
        memory=MemorySpec(capacity_bytes=10**9, bytes_per_cycle=1.0, latency_cycles=0),
        host=HostSpec(launch_ns=0.0, bytes_per_ns=1.0),
    )


def matrices(depth: int = 6, width: int = 384) -> list[tuple[str, int, int]]:
    """(ONNX node, rows, cols) of an encoder of ``depth`` layers, in execution order."""
    found: list[tuple[str, int, int]] = []
    for i in range(depth):
        at = f"/encoder/layer.{i}"
        found += [(f"{at}/attention/self/{n}/MatMul", width, width) for n in ("query", "key", "value")]
        found.append((f"{at}/attention/output/dense/MatMul", width, width))
        found.append((f"{at}/intermediate/dense/MatMul", width, 4 * width))
        found.append((f"{at}/output/dense/MatMul", 4 * width, width))
    return [*found, ("/pooler/dense/Gemm", width, width - 20)]


def mapping(depth: int = 6) -> dict[str, Any]:
    """The mapping dump: blocks first-fit over the CIM tiles, two attention products per layer on digital tiles."""
    used = dict.fromkeys(range(COLUMNS * ROWS), 0)
    cim = [t for t in used if kind(t) == "cim"]
    digital = [t for t in used if kind(t) == "digital"]
    static: list[dict[str, Any]] = []
    cells = 0
    for node, rows, cols in matrices(depth):
        blocks: list[dict[str, Any]] = []
        replicas = 2 if "intermediate" in node else 1
        for replica in range(replicas):
            for r in range(0, rows, BLOCK):
                for c in range(0, cols, BLOCK):
                    tile = next(t for t in cim if used[t] < CORES)
                    first = used[tile] * SLICES
                    used[tile] += 1
                    area = [min(rows, r + BLOCK) - r, min(cols, c + BLOCK) - c]
                    cells += area[0] * area[1] * SLICES
                    blocks.append(
                        {
                            "rows": [r, r + area[0]],
                            "cols": [c, c + area[1]],
                            "slices": SLICES,
                            "replica": replica,
                            "tile": tile,
                            "crossbars": list(range(first, first + SLICES)),
                        }
                    )
        layer = {"node": node, "weight": f"{node}.weight", "rows": rows, "cols": cols, "precision": "w8a8"}
        static.append({**layer, "origin": node, "blocks": blocks})
    dynamic = [
        {
            "node": f"/encoder/layer.{i}/attention/self/{name}",
            "kind": "matmul",
            "tile": digital[(12 * i + 6 * (name == "MatMul_1") + h // 2) % len(digital)],
            "unit": "matmul",
            "macs": 128 * 128 * 32,
        }
        for i in range(depth)
        for name in ("MatMul", "MatMul_1")
        for h in range(12)
    ]
    tiles = [
        {
            "id": t,
            "chip": 0,
            "x": t % COLUMNS,
            "y": t // COLUMNS,
            "kind": kind(t),
            "crossbars_used": used[t] * SLICES,
            "crossbars": CORES * SLICES if kind(t) == "cim" else 0,
        }
        for t in used
    ]
    total = sum(t["crossbars"] for t in tiles)
    return {
        "hardware": "synthetic-16x13",
        "chips": 1,
        "tiles": tiles,
        "static": static,
        "attention": [],
        "cache": {
            "how": "fit",
            "capacity_tokens": 100,
            "bytes": 512,
            "tiles": [{"tile": 0, "bytes": 512, "local_bytes": 1024}],
            "values": [
                {
                    "input": "past",
                    "output": "present",
                    "bytes": 512,
                    "tokens": 4,
                    "home": "tiles",
                    "tiles": [0],
                    "why": "",
                },
            ],
        },
        "dynamic": dynamic,
        "work": work(depth),
        "host": [{"node": "/embeddings/Where", "op_type": "Where", "reason": "no tile unit selects by a mask"}],
        "totals": {
            "crossbars_used": sum(used.values()) * SLICES,
            "crossbars": total,
            "cell_utilization": cells / (total * BLOCK * BLOCK),
            "tiles_used": sum(1 for n in used.values() if n) + len({d["tile"] for d in dynamic}),
        },
    }


def work(depth: int = 6) -> dict[str, Any]:
    """What the model multiplies: 128 tokens through every matrix, and 12 heads of 32 per layer."""
    rows = [
        {"node": node, "kind": "static", "batch": 1, "m": 128, "k": k, "n": n, "a": 128 * k, "b": k * n, "y": 128 * n,
         "weight": f"{node}.weight"}
        for node, k, n in matrices(depth)
    ]  # fmt: skip
    for i in range(depth):
        where = f"/encoder/layer.{i}/attention/self"
        square, long = 12 * 128 * 128, 12 * 128 * 32
        rows += [
            {"node": f"{where}/MatMul", "kind": "qk", "batch": 12, "m": 128, "k": 32, "n": 128, "a": long, "b": long,
             "y": square, "weight": ""},
            {"node": f"{where}/MatMul_1", "kind": "pv", "batch": 12, "m": 128, "k": 128, "n": 32, "a": square, "b": long,
             "y": long, "weight": ""},
        ]  # fmt: skip
    return {"io_bytes": 128 * 8 + 128 * 384 * 4, "products": rows}


def _cost(start: int, span: int, busy: dict[str, int], macs: float) -> Cost:
    energy = {
        "adc": 0.62 * macs,
        "crossbar": 0.11 * macs,
        "dac": 0.05 * macs,
        "noc": 0.021 * macs,
        "buffer": 0.04 * macs,
    }
    if "core" not in busy:
        energy = {"vector" if "vector" in busy else "matmul": 0.3 * macs, "buffer": 0.05 * macs}
    return Cost(busy, energy, start, start + span)


def timing(depth: int = 6) -> Timing:
    """An account of a run of :func:`mapping`: layers one after another, two layer norms in each encoder layer."""
    layers: dict[str, Cost] = {}
    now = 1200
    for node, rows, cols in matrices(depth):
        span = 2100 + rows * cols // 160
        layers[node] = _cost(now, span, {"core": span - 80, "vector": span // 5}, 128.0 * rows * cols)
        now += span // 2
        at = node.split("/attention/output")[0].split("/output/dense")[0]
        if "value" in node:
            for name in ("MatMul", "Softmax", "MatMul_1"):
                unit = "special" if name == "Softmax" else "matmul"
                where = f"{at.removesuffix('/value/MatMul')}/{name}"
                layers[where] = _cost(now, 2600, {unit: 2400}, 12 * 128 * 128 * 32.0)
                now += 2000
        if "output/dense" in node:
            name = "attention/output/LayerNorm" if "attention" in node else "output/LayerNorm"
            layers[f"{at}/{name}/LayerNormalization"] = _cost(now, 900, {"vector": 800}, 128 * 384 * 9.0)
            now += 500
    layers["/embeddings/Where"] = _cost(0, 1100, {"host": 1000}, 128 * 384 * 2.0)
    energy: dict[str, float] = {"leakage": 4.1e8}
    for cost in layers.values():
        for component, pj in cost.energy_pj.items():
            energy[component] = energy.get(component, 0.0) + pj
    cycles = now + 3000
    resources = {
        "cores": cycles // 3,
        "vector": cycles // 6,
        "matmul": cycles // 4,
        "memory": cycles // 9,
        "chain": cycles // 2,
    }
    origin = Origin(next(iter(layers)), "MatMul")
    return Timing(
        cycles=cycles,
        latency_ns=float(cycles),
        instructions=48213,
        energy_pj=energy,
        actions={"adc.convert": 123456789, "dac.drive": 987654},
        utilization={"core": 0.31, "vector": 0.12, "matmul": 0.22, "port": 0.08},
        traffic_bytes={"noc": 48_300_000, "memory": 1_230_000, "host": 196_608},
        macs={"static": 128 * sum(r * c for _, r, c in matrices(depth)), "dynamic": depth * 24 * 128 * 128 * 32},
        layers=layers,
        bound=Bound(cycles // 2, "chain", resources),
        host_cycles=1000,
        stalls={"message": 80_000, "operand": 20_000},
        tile_stalls={0: {"message": 50_000, "operand": 0}, 1: {"message": 30_000, "operand": 20_000}, 2: {}},
        events=(Event(1, "core:W0", 0, 10, "mvm", origin, 3),),
    )


def result(depth: int = 6) -> RunResult:
    """The run."""
    return RunResult(None, timing(depth), 0.0, 1.25, {})


def write_directory(path: Path, depth: int = 6, *, run: bool = True) -> Path:
    """A directory as compile and run leave it."""
    from cimc.report import figures, jsontext

    path.mkdir(parents=True, exist_ok=True)
    jsontext.write(mapping(depth), path / "mapping.json")
    options = {"precision": "w8a8", "dims": {"sequence": 128}}
    manifest = {
        "cimc": "0.1.0",
        "hardware": "synthetic-16x13",
        "options": options,
        "model": {"sha256": f"{depth:064x}"},
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    if run:
        jsontext.write(figures.from_result(result(depth)).to_json(), path / "run.json")
    return path
