"""What came of rounds of faults, a record for each round. Written as it goes, a line of JSON each,
so that a run of hours that is cut off goes on where it was. Pure, but for the file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from novacron.bench.faults import Fault
from novacron.bench.http_client import Exchange
from novacron.errors import ConfigError

Gap = tuple[float, float]


class RoundRecord(msgspec.Struct, kw_only=True):
    """One round. `faults` are their kinds, in order; `pauses_s`: of each stream that a fault met,
    how long nothing came from then on, by kind of fault (`several`: another one struck before
    something came); `mistaken_s`, `num_contradictions` and so on: see Truth. `num_left_out`: pauses
    in which this process did not run itself."""

    number: int
    faults: list[str] = []
    outcomes: dict[str, int] = {}
    unexpected: list[str] = []
    pauses_s: dict[str, list[float]] = {}
    num_left_out: int = 0
    mistaken_s: dict[str, list[float]] = {}
    num_looks: int = 0
    num_contradictions: int = 0
    num_called_dead: int = 0
    seconds: float = 0.0


class _Head(msgspec.Struct):
    """What the rounds of a file have in common."""

    scenario: dict[str, Any]
    settings: list[str]


class Journal:
    """The file of one run; no path: nothing is written."""

    def __init__(
        self, path: Path | None, scenario: Mapping[str, Any], settings: Sequence[str]
    ) -> None:
        """Reads what an earlier part of this run has left. Raises ConfigError if it is another
        run's."""
        self._path = path
        self.rounds: list[RoundRecord] = []
        if path is None:
            return
        head = msgspec.json.encode(_Head(dict(scenario), list(settings)))
        lines = path.read_bytes().splitlines() if path.exists() else []
        if not lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(head + b"\n")
        elif lines[0] != head:
            raise ConfigError(
                f"{path} is of a run with other settings. Give these, or another --journal."
            )
        self.rounds = list(_whole_lines(lines[1:]))
        whole = [head, *map(msgspec.json.encode, self.rounds), b""]
        path.write_bytes(b"\n".join(whole))  # without a line that was cut off

    def add(self, record: RoundRecord) -> None:
        self.rounds.append(record)
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(record) + b"\n")


def _whole_lines(lines: Sequence[bytes]) -> Iterator[RoundRecord]:
    """The last one may have been cut off."""
    for line in lines:
        try:
            yield msgspec.json.decode(line, type=RoundRecord)
        except msgspec.DecodeError:
            return


def total(rounds: Sequence[RoundRecord], name: str) -> dict[str, Any]:
    """Counts are added up, lists joined, by key."""
    found: dict[str, Any] = {}
    for record in rounds:
        for key, value in getattr(record, name).items():
            found[key] = found[key] + value if key in found else value
    return found


def note_pauses(
    record: RoundRecord,
    faults: Sequence[Fault],
    exchanges: Sequence[Exchange],
    held: Sequence[Gap] = (),
) -> None:
    """Of each stream and each fault that met it, the longest silence from then to the next fault:
    what an engine said last may still arrive after its death. `held`: when this process did not
    run, so that nothing is known."""
    ends_s = [*(fault.at_s for fault in faults[1:]), math.inf]
    for exchange in exchanges:
        if len(exchange.chunks) < 2:  # no stream
            continue
        gaps = list(pairwise([exchange.started_s, *(at_s for at_s, _ in exchange.chunks)]))
        struck: dict[Gap, list[Fault]] = {}
        for fault, end_s in zip(faults, ends_s, strict=True):
            after = [gap for gap in gaps if gap[1] > fault.at_s and gap[0] < end_s]
            if after and exchange.started_s < fault.at_s:
                struck.setdefault(_longest(after, fault.at_s), []).append(fault)
        for gap, those in struck.items():
            if any(begin < gap[1] and end > gap[0] for begin, end in held):
                record.num_left_out += 1
                continue
            kind = those[0].kind if len(those) == 1 else "several"
            record.pauses_s.setdefault(kind, []).append(gap[1] - max(gap[0], those[0].at_s))


def _longest(gaps: Sequence[Gap], from_s: float) -> Gap:
    return max(gaps, key=lambda gap: gap[1] - max(gap[0], from_s))
