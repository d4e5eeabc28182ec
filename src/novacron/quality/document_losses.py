"""What documents lost by each part of a model at each level, document by document, and a journal of
it, so that a measurement that was ended goes on where it was. No torch.

Shapes: D documents.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from novacron.errors import ConfigError


class DocumentLoss(msgspec.Struct, frozen=True, array_like=True):
    """Sums over the judged tokens of each document, in nats: the divergence from the reference, and
    the negative log-probability beyond the reference's."""

    kl_D: tuple[float, ...]
    nll_difference_D: tuple[float, ...]

    def and_then(self, others: DocumentLoss) -> DocumentLoss:
        """Of these documents and the others."""
        return DocumentLoss(
            self.kl_D + others.kl_D, self.nll_difference_D + others.nll_difference_D
        )


class DocumentLosses(msgspec.Struct, frozen=True):
    """Of some documents, with so many judged tokens each; `losses` by part and precision."""

    num_tokens_D: tuple[int, ...]
    losses: dict[str, dict[str, DocumentLoss]]

    @classmethod
    def joined(cls, runs: Sequence[DocumentLosses]) -> DocumentLosses:
        """Of all documents of one run after the other; at least one run."""
        first, *others = runs
        losses = {part: dict(levels) for part, levels in first.losses.items()}
        for run in others:
            for part, levels in run.losses.items():
                for level, loss in levels.items():
                    losses[part][level] = losses[part][level].and_then(loss)
        return cls(tuple(count for run in runs for count in run.num_tokens_D), losses)


class LossJournal:
    """Runs of documents, in their order, a line each; the first line says of what measurement.

    A line that was not written to its end counts as not there. Raises ConfigError if the file is of
    another measurement. Without a path, nothing is kept.
    """

    def __init__(self, path: Path | None = None, identity: Mapping[str, str] | None = None) -> None:
        self._path = path
        self._identity = dict(identity or {})
        self.runs: list[DocumentLosses] = []
        if path is not None and path.exists():
            self._read(path)

    def add(self, run: DocumentLosses) -> None:
        if self._path is not None:
            line = b"" if self.runs else self._first_line
            with self._path.open("ab" if self.runs else "wb") as file:
                file.write(line + msgspec.json.encode(run) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        self.runs.append(run)

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    @property
    def _first_line(self) -> bytes:
        return msgspec.json.encode(self._identity) + b"\n"

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        if self._first_line.startswith(data):
            return
        if not data.startswith(self._first_line):
            raise ConfigError(
                f"{path} is the beginning of another measurement: other documents, levels or "
                "another model. Remove it, or name another file."
            )
        whole = data[: data.rindex(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(path, len(whole))
        lines = whole[len(self._first_line) :].splitlines()
        self.runs = [msgspec.json.decode(line, type=DocumentLosses) for line in lines]
