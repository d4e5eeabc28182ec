"""One file of the log, cut into its lines and what follows them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from novacron.audit.chain import Line, read_line


@dataclass(frozen=True, slots=True)
class Scan:
    """`lines` are whole and right in themselves, up to the first that is not. `tail` is what
    follows; `tail_has_lines`: there are such lines in it, so that it is no torn end."""

    lines: tuple[Line, ...]
    tail: bytes
    tail_has_lines: bool


def scan(content: bytes) -> Scan:
    lines: list[Line] = []
    start = 0
    while (end := content.find(b"\n", start) + 1) > 0:
        line = read_line(content[start:end])
        if line is None:
            break
        lines.append(line)
        start = end
    tail = content[start:]
    later = tail.splitlines(keepends=True)
    return Scan(tuple(lines), tail, any(read_line(text) is not None for text in later))
