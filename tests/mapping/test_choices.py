"""Choices about the mapping, as texts."""

from __future__ import annotations

import pytest

from cimc.errors import CimcError
from cimc.mapping.choices import DEFAULT, Choices, parse_choices


def test_texts() -> None:
    assert parse_choices(()) == DEFAULT
    assert parse_choices(("replicas=2", "lanes = 1", "residence=off")) == Choices(replicas=2, lanes=1, residence=False)
    assert parse_choices(("replicas=2", "replicas=auto")) == DEFAULT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("replica=2", "did you mean 'replicas'"),
        (
            "x",
            "the keys are replicas, lanes, rotation, optimize, residence, reload, pool, cache, parts, sums, aside, exchange",
        ),
        ("lanes=0", "no number from 1 to 64"),
        ("lanes=1e3", "no number from 1 to 64"),
        ("lanes=99999999999999999999", "no number from 1 to 64"),
        ("rotation=auto", "no number from 1 to 8"),
        ("residence=1", "neither on nor off"),
    ],
)
def test_bad_texts(text: str, message: str) -> None:
    with pytest.raises(CimcError, match=message):
        parse_choices((text,))


def test_a_key_without_a_value_is_told_as_one() -> None:
    with pytest.raises(CimcError, match="it has no value") as caught:
        parse_choices(["sums"])
    assert "sums=" in caught.value.hint
