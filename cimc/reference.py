"""The reference of ``check``: the same model and inputs through onnxruntime, run so that it is exact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cimc.frontend import reference_twin, reference_values
from cimc.frontend.reference_twin import ReferenceModel

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Reference:
    """A model's exact reference on one set of inputs. ``name`` says what it is: onnxruntime, and how it is run."""

    model: ReferenceModel
    inputs: Mapping[str, Array]

    @classmethod
    def of(cls, path: Path, inputs: Mapping[str, Array]) -> Reference:
        """The reference of a model file. Raises CimcError if it is no ONNX model."""
        return cls(reference_twin.exact(path), inputs)

    @property
    def name(self) -> str:
        """What the reference is, for reports."""
        return self.model.name

    def outputs(self, names: Sequence[str]) -> dict[str, Array]:
        """Outputs by name. Raises REFERENCE if onnxruntime refuses the model or the inputs."""
        return reference_values.outputs(self.model, self.inputs, names)

    def inner_names(self) -> tuple[str, ...]:
        """Names of the values that the graph's nodes produce, in the order of the nodes."""
        return reference_values.inner_names(self.model)

    def inner(self, sizes: Mapping[str, int]) -> Iterator[dict[str, Array]]:
        """Values inside the graph, in chunks of at most ``reference_values.CHUNK_BYTES`` bytes (a single larger value
        aside): one run each. ``sizes`` gives each name's bytes. Raises REFERENCE."""
        for names in reference_values.chunks(sizes):
            yield reference_values.inner(self.model, self.inputs, names)
