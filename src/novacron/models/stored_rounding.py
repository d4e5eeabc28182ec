"""Matrices that files hold in the very form that they are to have: taken, not rounded again."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from novacron.kernels.linear import Rounded
from novacron.kernels.table import Kernels
from novacron.models.layers.matrix import Matrix
from novacron.models.weight_files import RoundedFiles, WeightFiles
from novacron.models.weight_slots import Source, WeightSlot, index_in_source


class StoredRounding:
    """Finishes what it can of the matrices that these slots belong to."""

    def __init__(self, slots: Iterable[tuple[WeightSlot, Source]], files: WeightFiles) -> None:
        self._files = files
        self._places: dict[Matrix, list[tuple[str, slice, slice]]] = {}
        self._finished: dict[Matrix, bool] = {}
        for slot, source in slots:
            if slot.matrix is None or slot.matrix.quantization is None:
                continue
            rows, columns = index_in_source(slot, source)
            inputs, size = range(slot.shape[1])[columns], slot.matrix.quantization.group_size
            if inputs.start % size:  # groups of this part of the inputs begin elsewhere
                self._finished[slot.matrix] = False
            groups = slice(inputs.start // size, -(-inputs.stop // size))
            self._places.setdefault(slot.matrix, []).append((source.name, rows, groups))

    def finish(self, matrix: Matrix | None, kernels: Kernels) -> bool:
        """Whether the matrix is finished with what the files hold. Raises ModelLoadError."""
        if matrix is None or matrix not in self._places:
            return False
        if matrix not in self._finished:
            rounded = self._read(matrix)
            if rounded is not None:
                matrix.finish_rounded(kernels, rounded)
            self._finished[matrix] = rounded is not None
        return self._finished[matrix]

    def _read(self, matrix: Matrix) -> Rounded | None:
        assert matrix.quantization is not None
        if not isinstance(self._files, RoundedFiles):
            return None
        parts: list[Rounded] = []
        for name, rows, groups in self._places[matrix]:
            part = self._files.rounded(name, rows, matrix.quantization)
            if part is None:
                return None
            parts.append(Rounded(part.values_OGS[:, groups], part.scales_OG[:, groups]))
        if len(parts) == 1:
            return parts[0]
        return Rounded(
            torch.cat([part.values_OGS for part in parts]),
            torch.cat([part.scales_OG for part in parts]),
        )
