"""BERT's tokenizer for uncased English models, from a vocab.txt.

The published algorithm (google-research/bert, ``tokenization.py``): clean the text, put spaces around CJK characters,
lower-case, strip accents, split at white space and punctuation, then cut every word greedily into the longest pieces
that the vocabulary has. Special tokens are added by ``encode`` only: ``[SEP]`` written in a text is ordinary text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAX_WORD_CHARACTERS = 100
"""A longer word becomes [UNK] whole, as published."""

CJK_RANGES = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
ASCII_PUNCTUATION = ((33, 47), (58, 64), (91, 96), (123, 126))
"""ASCII ranges that BERT counts as punctuation though Unicode calls some of them symbols ($, ^, `)."""


@dataclass(frozen=True)
class Tokens:
    """A batch as the model takes it: int64 [batch, length] each."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]

    def feeds(self) -> dict[str, NDArray[np.int64]]:
        """The three arrays under the model's input names."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "token_type_ids": self.token_type_ids,
        }


class WordPiece:
    """Text to token ids with one vocabulary."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._ids = {token: index for index, token in enumerate(vocabulary)}
        missing = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token not in self._ids]
        if missing:
            raise ValueError(f"the vocabulary has no {', '.join(missing)}")

    @classmethod
    def from_file(cls, path: Path) -> WordPiece:
        """Read a vocab.txt: one token a line, its id the line's number from 0."""
        return cls(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))

    def tokenize(self, text: str) -> list[str]:
        """The word pieces of a text, no special tokens; continuations begin with ``##``."""
        return [piece for word in split_words(text) for piece in self._pieces(word)]

    def ids(self, text: str) -> list[int]:
        """The ids of ``tokenize``."""
        return [self._ids[piece] for piece in self.tokenize(text)]

    def encode(self, texts: Sequence[str], length: int | None = None) -> Tokens:
        """[CLS] text [SEP] for each text, cut and padded to ``length``; without it, padded to the longest text."""
        if not texts:
            raise ValueError("no text to encode")
        if length is not None and length < 2:
            raise ValueError(f"length {length} has no room for [CLS] and [SEP]")
        bodies = [self.ids(text) for text in texts]
        width = length if length is not None else max(len(body) for body in bodies) + 2
        input_ids = np.full((len(texts), width), self._ids["[PAD]"], dtype=np.int64)
        mask = np.zeros_like(input_ids)
        for row, body in enumerate(bodies):
            ids = [self._ids["[CLS]"], *body[: width - 2], self._ids["[SEP]"]]
            input_ids[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        return Tokens(input_ids, mask, np.zeros_like(input_ids))

    def _pieces(self, word: str) -> list[str]:
        if len(word) > MAX_WORD_CHARACTERS:
            return ["[UNK]"]
        pieces: list[str] = []
        start = 0
        while start < len(word):
            piece = self._longest(word, start)
            if piece is None:
                return ["[UNK]"]
            pieces.append(piece)
            start += len(piece) - (2 if start else 0)
        return pieces

    def _longest(self, word: str, start: int) -> str | None:
        prefix = "##" if start else ""
        candidates = (prefix + word[start:end] for end in range(len(word), start, -1))
        return next((piece for piece in candidates if piece in self._ids), None)


def split_words(text: str) -> list[str]:
    """Lower-cased words without accents; every punctuation mark and CJK character is a word."""
    spaced = "".join(f" {c} " if _is_cjk(c) else c for c in _clean(text))
    decomposed = unicodedata.normalize("NFD", spaced)
    bare = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
    return "".join(f" {c} " if _is_punctuation(c) else c for c in bare.lower()).split()


def _clean(text: str) -> str:
    """Drop control characters and the replacement character; any white space becomes a blank."""
    kept: list[str] = []
    for c in text:
        if c in "\t\n\r" or unicodedata.category(c) == "Zs":
            kept.append(" ")
        elif c != "\ufffd" and unicodedata.category(c) not in ("Cc", "Cf"):
            kept.append(c)
    return "".join(kept)


def _is_cjk(c: str) -> bool:
    return any(low <= ord(c) <= high for low, high in CJK_RANGES)


def _is_punctuation(c: str) -> bool:
    if any(low <= ord(c) <= high for low, high in ASCII_PUNCTUATION):
        return True
    return unicodedata.category(c).startswith("P")
