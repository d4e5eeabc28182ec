"""Patterns that know their own beginnings, made of a few parts.

A stream shows a text piece by piece. To hold back no more than must be, one has to know whether the
end of what has come may be the beginning of a match. Each pattern has two regular expressions for
that: `full` matches what it stands for, `partial` matches from where it starts to the end of the
text (`\\Z`) if more text could still bring, prolong or undo a match there. The parts are
put together for both alike, so the two cannot drift apart. Repetition is bounded, hence so is a
match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_NEVER: Final = "(?!)"
MOST_BEHIND: Final = 2  # characters before a match that a pattern may look at
_AT_END: Final = r"\Z"


@dataclass(frozen=True, slots=True)
class Pattern:
    """`longest`: most characters that `full` has to see, those that it only looks at included."""

    full: str
    partial: str
    longest: int


def chars(members: str, *, after: str = "") -> Pattern:
    """One character of a class, written as between brackets: `0-9`, `^ `. `after`: the one before
    it, if there is one, is none of this class. (It is looked at behind the character, since regular
    expressions are quick to skip to a known first character, and to nothing else.)"""
    return Pattern(f"[{members}]{_not_after(after)}", _AT_END, 1)


def text(literal: str, *, after: str = "", goes_on: str = "") -> Pattern:
    """These characters. `after` as above; `goes_on`: what stands before may not be one of this
    class and a single space or dash either."""
    behind = _not_after(after) + (f"(?<![{goes_on}][ \\-][\\s\\S])" if goes_on else "")
    first = Pattern(re.escape(literal[0]) + behind, _AT_END, 1)
    return seq(first, *(Pattern(re.escape(char), _AT_END, 1) for char in literal[1:]))


def seq(*parts: Pattern) -> Pattern:
    """One after the other. A beginning is some parts in full, then the beginning of the next."""
    partial = _NEVER
    for part in reversed(parts):
        partial = f"(?:{part.full}{partial}|{part.partial})"
    return Pattern(
        "".join(part.full for part in parts), partial, sum(part.longest for part in parts)
    )


def either(*parts: Pattern) -> Pattern:
    """The first that matches, as in a regular expression: put the longer one first."""
    return Pattern(
        f"(?:{'|'.join(part.full for part in parts)})",
        f"(?:{'|'.join(part.partial for part in parts)})",
        max(part.longest for part in parts),
    )


def times(part: Pattern, least: int, most: int) -> Pattern:
    """As often as it goes."""
    assert 0 <= least <= most > 0
    repeated = f"(?:{part.full})"
    return Pattern(
        f"{repeated}{{{least},{most}}}",
        f"{repeated}{{0,{most - 1}}}{part.partial}",
        part.longest * most,
    )


def maybe(part: Pattern) -> Pattern:
    return times(part, 0, 1)


def words(*alternatives: str, after: str = "") -> Pattern:
    """Any of these words or phrases; a space stands for up to four spaces, line ends or dashes."""
    ordered = sorted(alternatives, key=len, reverse=True)
    return either(*(_phrase(one, after) for one in ordered))


def not_before(members: str) -> Pattern:
    """The character behind is none of the class. At the end of a stream's text that is open."""
    return Pattern(f"(?![{members}])", _AT_END, 1)


def _phrase(phrase: str, after: str) -> Pattern:
    first, *others = phrase.split()
    rest = [part for word in others for part in (GAP, text(word))]
    return seq(text(first, after=after), *rest)


def _not_after(members: str) -> str:
    return f"(?<![{members}][\\s\\S])" if members else ""


GAP: Final = times(chars(r"\s_\-"), 1, 4)
