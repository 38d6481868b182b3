"""The pairs span what they claim, and the trained model ranks them as a person does."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from models import minilm
from models.sentence_pairs import PAIRS, cosine_similarities, grades, sentences, spearman

needs_minilm = pytest.mark.skipif(not minilm.installed(), reason=f"needs {minilm.PACKAGE}=={minilm.VERSION}")


def test_pairs_span_all_grades_without_repeating_a_sentence() -> None:
    assert len(PAIRS) >= 24
    assert set(grades()) == {0, 1, 2, 3, 4, 5}
    assert len(set(sentences())) == 2 * len(PAIRS)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        # 1 - 6 * sum(d^2) / (n * (n^2 - 1)) with d = 0, 1, -1, 0
        ([1, 2, 3, 4], [1, 3, 2, 4], 1 - 6 * 2 / (4 * 15)),
        # ranks 1.5, 1.5, 3 against 1, 2, 3: covariance 1.5 over sqrt(1.5 * 2)
        ([5, 5, 7], [1, 2, 3], 1.5 / np.sqrt(3.0)),
    ],
)
def test_spearman_is_the_textbook_one(first: list[int], second: list[int], expected: float) -> None:
    assert spearman(first, second) == pytest.approx(expected, abs=1e-12)


def test_similarities_are_cosines_of_neighbouring_rows() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2 * len(PAIRS), 5))
    found = cosine_similarities(rows)
    a, b = rows[6], rows[7]
    assert found[3] == pytest.approx(a @ b / np.sqrt(a @ a * (b @ b)), abs=1e-12)
    with pytest.raises(ValueError, match=r"expected \(2 x pairs, width\)"):
        cosine_similarities(rows[:5])


@needs_minilm
def test_minilm_ranks_the_pairs_as_a_person_does() -> None:
    session = onnxruntime.InferenceSession(minilm.model().SerializeToString())
    (embeddings,) = session.run(["sentence_embedding"], minilm.tokenizer().encode(sentences()).feeds())
    similarities = cosine_similarities(np.asarray(embeddings))
    assert spearman(similarities, grades()) > 0.85
    by_grade = [similarities[np.array(grades()) == grade].mean() for grade in (0, 3, 5)]
    assert by_grade[0] < 0.15 < 0.35 < by_grade[1] < 0.7 < by_grade[2]
