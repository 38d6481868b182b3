"""onnxruntime's attention nodes against onnxruntime: masks, caches, groups, rotary embedding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.one_node import both, by_cimc, by_onnxruntime, node_model

RNG = np.random.default_rng(11)
B, S, H, D = 2, 4, 3, 8


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def whole(*values: object, dtype: type[np.generic] = np.int32) -> np.ndarray:
    return np.array(values, dtype)


def mask_of(form: str, s: int, t: int) -> np.ndarray | None:
    """The documented forms: ends, ends and starts, keys, pairs, the 3-B + 2 form."""
    keys = np.ones((B, t), np.int32)
    keys[0, t - 2 :] = 0
    if form == "none":
        return None
    if form == "ends":
        return whole(t - 2, t)
    if form == "ends and starts":
        return whole(t - 1, t, 1, 0)
    if form == "keys":
        return keys
    if form == "past and cumulated":
        return whole(t, t, 0, t, 2 * t, 0, t, 2 * t)
    pairs = np.broadcast_to(keys[:, None], (B, s, t)).copy()
    pairs[1, 0, 1] = 0
    return pairs


@pytest.mark.parametrize("form", ["none", "ends", "ends and starts", "keys", "pairs"])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("past", [0, 3])
def test_attention(tmp_path: Path, form: str, causal: int, past: int) -> None:
    hidden, t = H * D, S + past
    inputs: list[np.ndarray | None] = [
        normal(B, S, 10),
        normal(10, 3 * hidden),
        normal(3 * hidden),
        mask_of(form, S, t),
    ]
    if past:
        inputs.append(normal(2, B, H, past, D))
    while inputs[-1] is None:
        inputs.pop()
    attrs = {"num_heads": H, "unidirectional": causal}
    outputs = (1, 1) if past else (1,)
    both(tmp_path, "Attention", inputs, fixed=(1, 2), outputs=outputs, attrs=attrs, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("shape", [(B, H, S, S), (1, H, S, S), (1, 1, S, S), (B, 1, S, S)])
def test_attention_bias_scale_and_sizes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    sizes = [H * D, H * D, H * 5]
    inputs = (normal(B, S, 10), normal(10, sum(sizes)), normal(sum(sizes)), mask_of("keys", S, S), None, normal(*shape))
    attrs = {"num_heads": H, "qkv_hidden_sizes": sizes, "scale": 0.7, "mask_filter_value": -50.0}
    both(tmp_path, "Attention", inputs, fixed=(1, 2), attrs=attrs, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("form", ["none", "ends", "keys", "pairs"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("causal", [0, 1])
def test_multi_head(tmp_path: Path, form: str, bias: bool, causal: int) -> None:
    t = S if causal else 6
    inputs = [normal(B, S, H * D), normal(B, t, H * D), normal(B, t, H * 5)]
    inputs += [normal(2 * H * D + H * 5) if bias else None, mask_of(form, S, t), normal(1, H, S, t)]
    attrs = {"num_heads": H, "unidirectional": causal, "scale": 0.4}
    both(tmp_path, "MultiHeadAttention", inputs, attrs=attrs, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("form", ["none", "keys"])
def test_multi_head_with_cache(tmp_path: Path, bias: bool, form: str) -> None:
    past, hidden = 3, H * D
    inputs = [normal(B, S, hidden), normal(B, S, hidden), normal(B, S, hidden), normal(3 * hidden) if bias else None]
    inputs += [mask_of(form, S, S + past), None, normal(B, H, past, D), normal(B, H, past, D)]
    attrs = {"num_heads": H}
    both(tmp_path, "MultiHeadAttention", inputs, outputs=(1, 1, 1), attrs=attrs, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("t", [H, 6])
@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_over_projected_keys(tmp_path: Path, t: int, bias: bool) -> None:
    """Keys and values that have heads of their own, as many as tokens or not, are a cross attention's cache: of the bias,
    only the query's part is added."""
    inputs = [normal(B, S, H * D), normal(B, H, t, D), normal(B, H, t, D), normal(3 * H * D) if bias else None]
    inputs = inputs if bias else inputs[:3]
    both(tmp_path, "MultiHeadAttention", inputs, attrs={"num_heads": H}, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize(("s", "t"), [(1, 6), (5, 3)])
def test_a_causal_mask_starts_at_the_first_key(tmp_path: Path, s: int, t: int) -> None:
    inputs = (normal(B, s, H * D), normal(B, t, H * D), normal(B, t, H * D))
    both(tmp_path, "MultiHeadAttention", inputs, attrs={"num_heads": H, "unidirectional": 1}, rtol=1e-5, atol=3e-6)


def test_multi_head_over_another_cache(tmp_path: Path) -> None:
    inputs = [normal(B, S, H * D), normal(B, H, 6, D), normal(B, H, 6, D)]
    both(tmp_path, "MultiHeadAttention", inputs, attrs={"num_heads": H}, rtol=1e-5, atol=3e-6)


def test_multi_head_packed(tmp_path: Path) -> None:
    """onnxruntime takes packed operands on the GPU only: the same operands apart are the reference."""
    q, k, v = normal(B, S, H, D), normal(B, S, H, D), normal(B, S, H, D)
    attrs = {"num_heads": H}
    apart = [x.reshape(B, S, H * D) for x in (q, k, v)]
    feeds = dict(zip(("x0", "x1", "x2"), apart, strict=True))
    expected = by_onnxruntime(node_model("MultiHeadAttention", apart, attrs=attrs), feeds)["y0"]
    two, three = np.stack((k, v), axis=3), np.stack((q, k, v), axis=3)
    for inputs in ([apart[0], two], [three]):
        model = node_model("MultiHeadAttention", inputs, attrs=attrs)
        _, found = by_cimc(model, {f"x{i}": x for i, x in enumerate(inputs)}, tmp_path)
        np.testing.assert_allclose(found["y0"], expected, rtol=1e-5, atol=3e-6)


def test_a_mask_of_the_longest_sequence(tmp_path: Path) -> None:
    """onnxruntime takes it on the GPU only: its part, as a mask of pairs, is the reference."""
    hidden, past, attrs = H * D, 2, {"num_heads": H}
    mask = RNG.integers(0, 2, (B, 1, 9, 9)).astype(np.int32) | np.eye(9, dtype=np.int32)
    inputs = [normal(B, S, 10), normal(10, 3 * hidden), normal(3 * hidden), mask, normal(2, B, H, past, D)]
    _, found = by_cimc(
        node_model("Attention", inputs, outputs=(1, 1), attrs=attrs),
        {f"x{i}": x for i, x in enumerate(inputs)},
        tmp_path,
    )
    inputs[3] = mask[:, 0, past : past + S, : past + S].copy()
    model = node_model("Attention", inputs, outputs=(1, 1), attrs=attrs)
    expected = by_onnxruntime(model, {f"x{i}": x for i, x in enumerate(inputs)})
    np.testing.assert_allclose(found["y0"], expected["y0"], rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("rank", [3, 4])
def test_rotary(tmp_path: Path, interleaved: int, offset: bool, rank: int) -> None:
    x = normal(B, S, H * D) if rank == 3 else normal(B, H, S, D)
    positions = whole(2, dtype=np.int64) if offset else RNG.integers(0, 10, (B, S))
    attrs = {"interleaved": interleaved}
    both(
        tmp_path,
        "RotaryEmbedding",
        (x, positions, normal(10, D // 2), normal(10, D // 2)),
        attrs=attrs,
        rtol=1e-5,
        atol=3e-6,
    )


def test_rotary_of_a_part(tmp_path: Path) -> None:
    x, positions = normal(B, S, H * D), RNG.integers(0, 10, (B, S))
    attrs = {"num_heads": H, "rotary_embedding_dim": 4}
    both(tmp_path, "RotaryEmbedding", (x, positions, normal(10, 2), normal(10, 2)), attrs=attrs, rtol=1e-5, atol=3e-6)


G, E = 2, 16
GROUPS = {"num_heads": 4, "kv_num_heads": G}
NEAR = {"rtol": 1e-5, "atol": 3e-6}


def cache(batch: int, p: int, s: int, *, packed: bool = False) -> list[np.ndarray | None]:
    """Operands of GroupQueryAttention over ``p`` cached and ``s`` new tokens."""
    q = [normal(batch, s, (4 + 2 * G) * E), None, None] if packed else []
    q = q or [normal(batch, s, 4 * E), normal(batch, s, G * E), normal(batch, s, G * E)]
    return [*q, normal(batch, G, p, E), normal(batch, G, p, E), whole(*[p + s - 1] * batch), whole(p + s)]


def rotation() -> list[np.ndarray]:
    return [normal(16, E // 2), normal(16, E // 2)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sizes", [(2, 0, 4), (2, 5, 1), (1, 5, 3)])
@pytest.mark.parametrize("rotary", [0, 1])
@pytest.mark.parametrize(
    "extra", [{}, {"local_window_size": 3}, {"softcap": 0.5, "scale": 0.3}, {"smooth_softmax": 1}], ids=str
)
def test_groups(
    tmp_path: Path, packed: bool, sizes: tuple[int, int, int], rotary: int, extra: dict[str, object]
) -> None:
    inputs = cache(*sizes, packed=packed) + (rotation() if rotary else [])
    attrs = {**GROUPS, "do_rotary": rotary, **extra}
    both(tmp_path, "GroupQueryAttention", inputs, fixed=(6,), outputs=(1, 1, 1), attrs=attrs, **NEAR)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("positions", [False, True])
def test_groups_rotated(tmp_path: Path, interleaved: int, positions: bool) -> None:
    inputs = [*cache(1, 5, 3), *rotation()]
    if positions:
        inputs.append(np.array([[5, 6, 7]]))
    attrs = {**GROUPS, "do_rotary": 1, "rotary_interleaved": interleaved}
    both(tmp_path, "GroupQueryAttention", inputs, fixed=(6,), outputs=(1, 1, 1), attrs=attrs, **NEAR)


@pytest.mark.parametrize("part", ["sink", "bias"])
def test_groups_with_more_scores(tmp_path: Path, part: str) -> None:
    inputs = [*cache(2, 5, 1), None, None, None, normal(1, 4, 1, 6) if part == "bias" else None]
    inputs += [normal(4)] if part == "sink" else []
    both(tmp_path, "GroupQueryAttention", inputs, fixed=(6,), outputs=(1, 1, 1), attrs=GROUPS, **NEAR)


def test_groups_of_normed_heads(tmp_path: Path) -> None:
    """onnxruntime norms on the GPU only: heads normed before are the reference."""
    inputs = [*cache(2, 5, 1), *rotation(), *[None] * 5, normal(E), normal(E)]
    attrs: dict[str, object] = {**GROUPS, "do_rotary": 1}
    model = node_model("GroupQueryAttention", inputs, fixed=(6,), outputs=(1, 1, 1), attrs=attrs)
    feeds = {f"x{i}": x for i, x in enumerate(inputs) if x is not None and i != 6}
    _, found = by_cimc(model, feeds, tmp_path)
    before = list(inputs[:9])
    for at, gain in ((0, inputs[14]), (1, inputs[15])):
        heads = np.asarray(inputs[at]).reshape(2, 1, -1, E)
        size = np.sqrt(np.mean(np.square(heads), axis=-1, keepdims=True) + 1e-6)
        before[at] = (heads / size * gain).reshape(2, 1, -1).astype(np.float32)
    model = node_model("GroupQueryAttention", before, fixed=(6,), outputs=(1, 1, 1), attrs=attrs)
    expected = by_onnxruntime(model, {f"x{i}": x for i, x in enumerate(before) if x is not None and i != 6})
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], **NEAR)


def valid(
    tmp_path: Path, inputs: list[np.ndarray | None], fixed: tuple[int, ...], attrs: dict[str, object]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Outputs of cimc and of onnxruntime, for tests that look at the tokens that exist only."""
    model = node_model("GroupQueryAttention", inputs, fixed=fixed, outputs=(1, 1, 1), attrs=attrs)
    feeds = {f"x{i}": x for i, x in enumerate(inputs) if x is not None and i not in fixed}
    return by_cimc(model, feeds, tmp_path)[1], by_onnxruntime(model, feeds)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("rotary", [0, 1])
def test_a_prompt_padded_on_the_right(tmp_path: Path, known: bool, rotary: int) -> None:
    """``seqlens_k`` says how many tokens of each sample are real."""
    inputs = cache(2, 0, 4) + (rotation() if rotary else [])
    inputs[5] = whole(2, 3)
    found, expected = valid(tmp_path, inputs, (5, 6) if known else (6,), {**GROUPS, "do_rotary": rotary})
    for sample, count in ((0, 3), (1, 4)):
        np.testing.assert_allclose(found["y0"][sample, :count], expected["y0"][sample, :count], **NEAR)
        for y in ("y1", "y2"):
            np.testing.assert_allclose(found[y][sample, :, :count], expected[y][sample, :, :count], **NEAR)


@pytest.mark.parametrize("counts", [(6, 4), (6, 6)])
@pytest.mark.parametrize("size", [6, 10])
@pytest.mark.parametrize("rotary", [0, 1])
@pytest.mark.parametrize("window", [-1, 3])
def test_samples_of_different_length(
    tmp_path: Path, counts: tuple[int, int], size: int, rotary: int, window: int
) -> None:
    """The cache is as long as the longest sample, or longer: the new token goes after each sample's own, zeros after it."""
    inputs = cache(2, size, 1) + (rotation() if rotary else [])
    inputs[5], inputs[6] = whole(*counts), whole(7)
    attrs = {**GROUPS, "do_rotary": rotary, "local_window_size": window}
    both(tmp_path, "GroupQueryAttention", inputs, fixed=(6,), outputs=(1, 1, 1), attrs=attrs, **NEAR)


@pytest.mark.parametrize("sizes", [(1, 10, 4, 4), (2, 10, 4, 4), (1, 10, 3, 8), (1, 10, 1, 10)], ids=str)
def test_tokens_in_a_longer_buffer(tmp_path: Path, sizes: tuple[int, int, int, int]) -> None:
    """So many samples, places of the buffer, new tokens, tokens in all: what was in the places behind is not kept."""
    batch, room, new, total = sizes
    inputs = cache(batch, room, new)
    inputs[5], inputs[6] = whole(*[total - 1] * batch), whole(total)
    both(tmp_path, "GroupQueryAttention", inputs, fixed=(6,), outputs=(1, 1, 1), attrs=GROUPS, **NEAR)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_one_token_of_a_decoder(tmp_path: Path, known: bool, mask: bool) -> None:
    """Into a buffer for 9 tokens that holds 5."""
    hidden = H * D
    inputs = [normal(B, 1, hidden), normal(B, 1, hidden), normal(B, 1, hidden)]
    seen = whole(*[[0, 1, 1, 1, 1, 1], [1] * 6]) if mask else None
    inputs += [seen, None, normal(B, H, 9, D), normal(B, H, 9, D), whole(5)]
    attrs = {"num_heads": H, "past_present_share_buffer": 1}
    fixed = (7,) if known else ()
    if mask and not known:
        pytest.skip("a mask over keys whose number is known only at run time")
    both(tmp_path, "DecoderMaskedMultiHeadAttention", inputs, fixed=fixed, outputs=(1, 1, 1), attrs=attrs, **NEAR)
