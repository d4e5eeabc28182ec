"""A model in GGUF: one file, or several that llama.cpp's gguf-split made of it.

Of several, the first has the metadata and the name that is given; the others lie beside it:
NAME-00001-of-00003.gguf, NAME-00002-of-00003.gguf, ... Each has some of the tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from novacron.errors import ModelLoadError
from novacron.models.gguf_file import GGUFFile, TensorInfo

_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_MOST_PARTS = 99_999  # as the names have room for


class GGUFModel:
    """Raises ModelLoadError that names the file and the reason."""

    def __init__(self, path: Path) -> None:
        self.path = path
        first = GGUFFile(path)
        self.metadata: Mapping[str, Any] = first.metadata
        self.parts = (first, *map(GGUFFile, _other_parts(first)))
        self._part_of = {name: part for part in self.parts for name in part.tensors}
        self._check_tensors()

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return {name: part.tensors[name] for name, part in self._part_of.items()}

    def part_of(self, tensor: str) -> GGUFFile:
        """The file that has the tensor of this name, which must be there."""
        return self._part_of[tensor]

    def _check_tensors(self) -> None:
        num_found = sum(len(part.tensors) for part in self.parts)
        if len(self._part_of) < num_found:
            raise ModelLoadError(
                f"{self.path}: two parts of the model have a tensor of the same name. They are not "
                "of one model, or damaged."
            )
        expected = self.metadata.get("split.tensors.count", num_found)
        if len(self.parts) > 1 and expected != num_found:
            raise ModelLoadError(
                f"{self.path}: the parts of the model have {num_found} tensors, not {expected}. "
                "They are not of one model, or damaged."
            )


def _other_parts(first: GGUFFile) -> list[Path]:
    """Paths of the second part and those after it. Raises ModelLoadError."""
    num_parts = first.metadata.get("split.count", 1)
    if not isinstance(num_parts, int) or not 0 <= num_parts <= _MOST_PARTS:
        raise ModelLoadError(f"{first.path}: split.count is {num_parts!r}; the file is damaged.")
    if num_parts <= 1:
        return []
    if (number := first.metadata.get("split.no", 0)) != 0:
        raise ModelLoadError(
            f"{first.path} is part {number + 1} of a model in {num_parts} files. Give the first, "
            f"which ends in -00001-of-{num_parts:05}.gguf."
        )
    name = _NAME.fullmatch(first.path.name)
    if name is None or (int(name[2]), int(name[3])) != (1, num_parts):
        raise ModelLoadError(
            f"{first.path} is the first of {num_parts} files of a model, whose names must end in "
            f"-00001-of-{num_parts:05}.gguf and so on. Give it the name it had."
        )
    paths = [
        first.path.with_name(f"{name[1]}-{number:05}-of-{num_parts:05}.gguf")
        for number in range(2, num_parts + 1)
    ]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise ModelLoadError(
            f"{first.path}: the model is in {num_parts} files, and {missing[0]} is not beside it"
            f"{f' (nor {len(missing) - 1} more)' if len(missing) > 1 else ''}. Fetch all of them."
        )
    return paths
