"""Pairs of English sentences, from unrelated to paraphrase, written for this project.

For the question that a user of a sentence encoder asks of a machine: does it still rank pairs as it should? Compare the
ranking (Spearman) by cosine similarity with onnxruntime's; ``grade`` is a person's rough judgement, for orientation.

    similarities = cosine_similarities(embeddings_of(sentences()))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Pair:
    """Two sentences; ``grade``: 0 unrelated, 1 same field, 2 same topic, 3 overlap, 4 nearly the same, 5 the same."""

    first: str
    second: str
    grade: int


PAIRS: tuple[Pair, ...] = (
    Pair("The cat is asleep on the warm windowsill.", "A cat sleeps on the sunny window ledge.", 5),
    Pair("She bought a second-hand bicycle yesterday.", "Yesterday she purchased a used bike.", 5),
    Pair("The train to Lyon leaves at half past six.", "At 6:30 the train departs for Lyon.", 5),
    Pair("Nobody in the village could remember such a cold winter.", "No villager recalled a winter that cold.", 5),
    Pair("The company cut four hundred jobs this spring.", "This spring the firm laid off 400 workers.", 5),
    Pair("He apologised for arriving late to the meeting.", "He said sorry for being late to the meeting.", 5),
    Pair("A man is chopping onions in the kitchen.", "A man is cutting vegetables in the kitchen.", 4),
    Pair("The museum is closed on Mondays.", "You cannot visit the museum on Monday or Tuesday.", 4),
    Pair("Two children are building a sandcastle on the beach.", "Some kids play in the sand by the sea.", 4),
    Pair("The new bridge will open to traffic in March.", "Cars may cross the new bridge from early spring.", 4),
    Pair("The doctor told him to drink less coffee.", "His physician advised him to avoid caffeine and alcohol.", 4),
    Pair("The river flooded the lower part of the town.", "Heavy rain left several streets under water.", 3),
    Pair("She plays the violin in a small orchestra.", "She plays the piano in a jazz band.", 3),
    Pair("The bakery on the corner sells rye bread.", "The shop on the corner sells flowers.", 3),
    Pair("A dog is chasing a ball across the park.", "A dog is sleeping under a bench in the park.", 3),
    Pair("The team lost the final by a single goal.", "The team won the final after extra time.", 3),
    Pair("Our flight to Oslo was cancelled because of fog.", "The ferry to Oslo was delayed by a storm.", 3),
    Pair("He repairs old wooden boats for a living.", "He sails a small boat at the weekend.", 2),
    Pair("The tomatoes in the garden are nearly ripe.", "She waters her roses every evening.", 2),
    Pair("The striker scored twice in the first half.", "The tennis match lasted almost five hours.", 2),
    Pair("Add a pinch of salt to the boiling water.", "The restaurant is known for its seafood.", 2),
    Pair("The phone's battery lasts for two days.", "My laptop needs a faster processor.", 2),
    Pair("The parliament passed the new tax law.", "The mayor opened a school for nurses.", 1),
    Pair("Snow is expected in the mountains tonight.", "The desert has not seen rain for a year.", 1),
    Pair("A nurse measured the patient's blood pressure.", "The vet examined a horse with a lame leg.", 1),
    Pair("He reads a chapter before going to bed.", "The library received a gift of rare maps.", 1),
    Pair("The violinist tuned her instrument.", "Interest rates rose for the third time this year.", 0),
    Pair("My grandmother grew up on a sheep farm.", "The compiler reports an error on line nine.", 0),
    Pair("The glacier has retreated by two kilometres.", "Please sign the form and return it by Friday.", 0),
    Pair("They painted the fence bright green.", "Quantum states collapse when they are measured.", 0),
    Pair("The soup needs a little more pepper.", "The satellite entered orbit around Mars.", 0),
    Pair("Whales sing to each other over great distances.", "The invoice was paid in two instalments.", 0),
)


def sentences() -> list[str]:
    """Both sentences of each pair in turn: rows ``2 * i`` and ``2 * i + 1`` of a batch belong to pair ``i``."""
    return [text for pair in PAIRS for text in (pair.first, pair.second)]


def some(pairs: int) -> list[str]:
    """Both sentences of so many pairs, spread evenly over the list so that every grade is there."""
    which = np.unique(np.linspace(0, len(PAIRS) - 1, pairs).round().astype(int))
    every = sentences()
    return [every[2 * i + side] for i in which for side in (0, 1)]


def cosine_similarities(embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """The cosine of each two rows that stand next to each other, of (2 × pairs, width). Raises ValueError for others."""
    wide = np.asarray(embeddings, dtype=np.float64)
    if wide.ndim != 2 or len(wide) % 2:
        raise ValueError(f"embeddings are {wide.shape}, expected (2 x pairs, width)")
    wide = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return np.einsum("ij,ij->i", wide[0::2], wide[1::2])


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks."""
    a, b = (_ranks(np.asarray(values, dtype=np.float64)) for values in (first, second))
    return float(np.corrcoef(a, b)[0, 1])


def grades() -> Sequence[int]:
    """The grades of the pairs, in order."""
    return [pair.grade for pair in PAIRS]


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]
