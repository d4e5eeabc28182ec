"""SameModel: whether engines on several hosts compute the same.

A call that loses its engine goes on at another one. That is exact only if both have the same
weights in the same precision, which nobody but they can know.
"""

from __future__ import annotations

from typing import Final

from novacron.errors import ModelLoadError
from novacron.records.output import ModelSpec

_FACTS: Final = (
    "model_version", "dtype", "quantization", "kv_identity", "vocab_size", "max_model_len",
    "device",
)  # fmt: skip


def identity(spec: ModelSpec) -> str:
    """The same for engines that compute the same."""
    return " ".join(f"{fact}={getattr(spec, fact)}" for fact in _FACTS)


class SameModel:
    """Of the engines of one group: all have to be as the first one that was ready."""

    def __init__(self) -> None:
        self._first: ModelSpec | None = None

    def check(self, spec: ModelSpec) -> None:
        """Raises ModelLoadError for an engine that is another."""
        if self._first is None:
            self._first = spec
            return
        first = self._first
        for fact in _FACTS:
            ours, its = getattr(first, fact), getattr(spec, fact)
            if ours != its:
                raise ModelLoadError(
                    f"The engine on {spec.host or 'this host'} has {fact} {its!r}, the one on "
                    f"{first.host or 'this host'} {ours!r}: a request could not go on from one to "
                    "the other. Give all hosts the same files and settings; copy large ones with "
                    "their times (rsync -a), which are part of the version."
                )
