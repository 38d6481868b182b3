"""Inputs to what the kernels for few vectors are driven with: which rows of a group every input plane drives."""

from __future__ import annotations

from cimc.analog.kernels.ir import Values, Writer, function, splat


def build_patterns(planes: int, members: int, size: int) -> str:
    """IR of ``patterns(inputs, starts, offsets, counts; vectors, blocks, groups, rows)``.

    ``inputs`` are bytes (vector, row), rows in groups of ``members``; ``starts`` (block, 3): what one first row is
    elsewhere, first group, groups. ``offsets`` 16-bit (vector, group, plane): bit j set where row j of the group is
    driven in that plane, times ``size``; ``counts`` 16-bit (vector, block, plane): driven rows.
    """
    w, kind = Writer(), f"<{planes} x i16>"
    shifts = "<" + ", ".join(f"i16 {k}" for k in range(planes)) + ">"
    zeros = f"<{planes} x i32> zeroinitializer"
    step = size.bit_length() - 1

    def group_body(group: str, base: str, place: str, count: Values) -> Values:
        row = w.do(f"add i64 {base}, {w.do(f'mul i64 {group}, {members}')}")
        total, driven = "zeroinitializer", count[0]
        for j in range(members):
            value = w.do(f"zext i8 {w.do('load i8, ptr ' + w.at('i8', '%inputs', row, str(j)))} to i16")
            single = w.do(f"insertelement {kind} poison, i16 {value}, i64 0")
            spread = w.do(f"shufflevector {kind} {single}, {kind} poison, {zeros}")
            bit = w.do(f"and {kind} {w.do(f'lshr {kind} {spread}, {shifts}')}, {splat('i16', planes, 1)}")
            driven = w.do(f"add {kind} {driven}, {bit}")
            total = w.do(f"or {kind} {total}, {w.do(f'shl {kind} {bit}, ' + splat('i16', planes, j + step))}")
        at = w.do(f"mul i64 {w.do(f'add i64 {place}, {group}')}, {planes}")
        w.store(kind, total, "%offsets", at, unit="i16")
        return [driven]

    def vector_body(vector: str, _: Values) -> Values:
        base = w.do(f"mul i64 {vector}, %rows")
        place = w.do(f"mul i64 {vector}, %groups")
        counted = w.do(f"mul i64 {vector}, %blocks")

        def block_body(block: str, _: Values) -> Values:
            entry = w.do(f"mul i64 {block}, 3")
            first, many = (w.do(f"load i64, ptr {w.at('i64', '%starts', entry, str(i))}") for i in (1, 2))
            past = w.do(f"add i64 {first}, {many}")
            found = w.loop(
                first, past, "1", [(kind, "zeroinitializer")], lambda g, count: group_body(g, base, place, count)
            )
            at = w.do(f"mul i64 {w.do(f'add i64 {counted}, {block}')}, {planes}")
            w.store(kind, found[0], "%counts", at, unit="i16")
            return []

        w.loop("0", "%blocks", "1", [], block_body)
        return []

    w.loop("0", "%vectors", "1", [], vector_body)
    arguments = "ptr %inputs, ptr %starts, ptr %offsets, ptr %counts, i64 %vectors, i64 %blocks, i64 %groups, i64 %rows"
    return function("patterns", arguments, w)
