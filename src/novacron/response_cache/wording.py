"""Whether two questions ask the same, by their words: the guard behind similar vectors. Pure.

Vectors put a question beside its opposite, for they share all words but one. So what a vector finds
must also say the same in so many words: equal numbers, names and other words that carry meaning,
equal negations, question words, tense and comparisons, and, where words such as "from" or "than"
say who does what to whom, in equal roles. Only words without a say of their own, polite ones and a
short list of synonyms are passed over. English; in other languages few words are passed over, so
that hits are rarer but no less right.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final, NamedTuple

_WORD: Final = re.compile(r"\d+(?:[.,:]\d+)*%?|[^\W\d_]+(?:'[^\W\d_]+)?|[-+*/=<>^$€£#@&|]")
_POLITE: Final = re.compile(
    r"^\W*(?:(?:hi|hello|hey|please|kindly)\W+)*(?:is it (?:ok|okay|possible) to )?"
    r"(?:(?:can|could|would|will) you (?:please )?|i (?:would|'d) like (?:you )?to )?"
    r"(?:please )?(?:(?:tell|show|give)(?: me)?\b|name\b|list\b)?",
)
_CONTRACTIONS: Final = (
    (re.compile(r"can't|cannot\b"), "can not"),
    (re.compile(r"won't\b"), "will not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\b(what|who|where|when|how|that|it|there)'s\b"), r"\1 is"),
    (re.compile(r"'(re|m)\b"), " are"),
    (re.compile(r"\b(have|has|had|need|needs) to\b"), "must"),
    (re.compile(r"\bhow to\b"), "how"),
)
_EMPTY: Final = frozenset(
    "a an the of is are am be do does i me my it that there to in on at for what which please "
    "explain exactly actually just so and as mean meaning have has can may ok okay would".split()
)
_NEGATIONS: Final = frozenset("not no never none without neither nor except unless".split())
_ROLES: Final = frozenset(
    "from into than before after by over under above below against versus vs minus "
    "if until since".split()
)
_MOVES: Final = frozenset("convert translate change turn send move fly travel go goes add".split())
_ASKING: Final = frozenset("is are am was were do does did has have had should".split())
_PAST: Final = frozenset("was were did had".split())
_FUTURE: Final = frozenset("will shall".split())
_SAME: Final = {
    "biggest": "largest", "big": "large", "bigger": "larger", "enable": "turn_on",
    "summarise": "summarize", "remove": "delete", "height": "tall", "high": "tall",
    "movie": "film", "begin": "start", "began": "started", "buy": "purchase", "quick": "fast",
    "author": "wrote", "inventor": "invented", "steps": "how",
}  # fmt: skip


class Wording(NamedTuple):
    """What of a question's words must be equal. `order` counts where `has_roles`."""

    words: frozenset[str]
    numbers: tuple[tuple[str, int], ...]
    num_negations: int
    has_roles: bool
    order: tuple[str, ...]


def same_question(first: str, second: str) -> bool:
    """Whether the two differ in nothing that counts."""
    if first == second:
        return True
    one, other = wording_of(first), wording_of(second)
    if one[:3] != other[:3] or one.has_roles != other.has_roles:
        return False
    return one.order == other.order if one.has_roles else True


def wording_of(text: str) -> Wording:
    plain = text.replace("\u2019", "'").lower()
    for pattern, written_out in _CONTRACTIONS:
        plain = pattern.sub(written_out, plain)
    plain = _POLITE.sub("", plain, count=1)
    tokens = [token.removesuffix("'s").removesuffix("'") for token in _WORD.findall(plain)]
    numbers = Counter(token for token in tokens if token[0].isdigit())
    negations = sum(token in _NEGATIONS for token in tokens)
    moves = "from" in tokens or any(token in _MOVES for token in tokens)
    order: list[str] = []
    role = ""
    for place, token in enumerate(tokens):
        if token in _ROLES or (token == "to" and moves):
            role = token
        elif place == 0 and token in _ASKING:
            order.append(f"<asks{'_past' if token in _PAST else ''}>")
        elif token in _PAST:
            order.append("<past>")
        elif token in _FUTURE:
            order.append("<future>")
        elif token not in _EMPTY and token not in _NEGATIONS and not token[0].isdigit():
            stem = _stem(_SAME.get(token, token))
            order.append(f"{role}:{stem}" if role else stem)
            role = ""
        elif token[0].isdigit() and role:
            order.append(f"{role}:{token}")
            role = ""
    has_roles = any(":" in word for word in order)
    return Wording(
        frozenset(order), tuple(sorted(numbers.items())), negations, has_roles, tuple(order)
    )


def _stem(word: str) -> str:
    """Without the s of a plural or of the third person."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith("oes"):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
