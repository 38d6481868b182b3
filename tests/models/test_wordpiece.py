"""WordPiece against small cases worked by hand, and against the ids that the ``tokenizers`` library gives.

``wordpiece_golden.json`` was written once by ``tokenizers`` 0.23.3 from the tokenizer.json of all-MiniLM-L6-v2
(Apache-2.0): ``Tokenizer.from_file(...).encode(text).ids`` for each text.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models import minilm
from models.wordpiece import WordPiece, split_words

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "un",
    "##aff",
    "##able",
    "want",
    "##want",
    "##ed",
    "runn",
    "##ing",
    ",",
]
needs_minilm = pytest.mark.skipif(not minilm.installed(), reason=f"needs {minilm.PACKAGE}=={minilm.VERSION}")
GOLDEN = json.loads((Path(__file__).parent / "wordpiece_golden.json").read_text(encoding="ascii"))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("UNwanted running", ["un", "##want", "##ed", "runn", "##ing"]),
        ("unaffable, Ünaffable", ["un", "##aff", "##able", ",", "un", "##aff", "##able"]),
        ("unwantedX running", ["[UNK]", "runn", "##ing"]),
        ("[SEP]", ["[UNK]", "[UNK]", "[UNK]"]),
        ("", []),
    ],
)
def test_words_are_cut_into_the_longest_pieces(text: str, pieces: list[str]) -> None:
    assert WordPiece(VOCABULARY).tokenize(text) == pieces


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Héllo,  wörld!", ["hello", ",", "world", "!"]),
        ("a$b^c`d~e", ["a", "$", "b", "^", "c", "`", "d", "~", "e"]),
        ("in東京today", ["in", "東", "京", "today"]),
        ("a\u00a0b\tc\u2009d", ["a", "b", "c", "d"]),
        ("a\x00b\ufffdc\u200bd", ["abcd"]),
    ],
)
def test_text_is_cleaned_and_split(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_a_batch_is_padded_and_cut_between_its_special_tokens() -> None:
    tokens = WordPiece(VOCABULARY).encode(["unwanted running", "un"], length=5)
    np.testing.assert_array_equal(tokens.input_ids, [[2, 4, 8, 9, 3], [2, 4, 3, 0, 0]])
    np.testing.assert_array_equal(tokens.attention_mask, [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    np.testing.assert_array_equal(tokens.token_type_ids, np.zeros((2, 5)))
    assert WordPiece(VOCABULARY).encode(["unwanted running", "un"]).input_ids.shape == (2, 7)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="has no \\[CLS\\], \\[SEP\\]"):
        WordPiece(["[PAD]", "[UNK]"])
    with pytest.raises(ValueError, match="no text"):
        WordPiece(VOCABULARY).encode([])
    with pytest.raises(ValueError, match="no room"):
        WordPiece(VOCABULARY).encode(["un"], length=1)


@needs_minilm
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: ascii(case["text"])[:24])
def test_ids_are_those_of_the_tokenizers_library(case: dict[str, object]) -> None:
    text = case["text"]
    assert isinstance(text, str)
    assert minilm.tokenizer().encode([text]).input_ids[0].tolist() == case["ids"]
