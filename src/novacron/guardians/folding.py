"""Characters that look alike made one, so that a pattern is not evaded by a fullwidth digit.

Each character becomes exactly one, so that places in the folded text are places in the text, and
a stream can be folded piece by piece.
"""

from __future__ import annotations

import unicodedata
from typing import Final

ZERO_WIDTH: Final = "\u200b"  # what all invisible characters become
_INVISIBLE: Final = frozenset("\u00ad\u200b\u200c\u200d\u2060\ufeff\u180e\u034f\u061c")
_LOOKALIKES: Final = (
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501"
    "\u04bb\u04cf\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421"
    "\u0422\u0425\u0406\u0408\u0405\u03bf\u0391\u0392\u0395\u0396\u0397"
    "\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bd"
)
_LETTERS: Final = dict(  # of Cyrillic and Greek, drawn as ours are
    zip(_LOOKALIKES, "aeopcyxijsdhlABEKMHOPCTXIJSoABEZHIKMNOPTYXv", strict=True)
)


class _Table(dict[int, str]):
    """For str.translate, filled as characters come up. There are no more than code points."""

    def __missing__(self, code: int) -> str:
        folded = _fold(chr(code))
        self[code] = folded
        return folded


def _fold(char: str) -> str:
    category = unicodedata.category(char)
    if char in _INVISIBLE or 0xE0000 <= ord(char) <= 0xE007F or 0xFE00 <= ord(char) <= 0xFE0F:
        return ZERO_WIDTH
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category == "Pd":
        return "-"
    if category == "Zs":
        return " "
    if char in _LETTERS:
        return _LETTERS[char]
    compatible = unicodedata.normalize("NFKC", char)
    return compatible if len(compatible) == 1 else char


_TABLE: Final = _Table()


def fold(text: str) -> str:
    """As many characters as `text`."""
    return text if text.isascii() else text.translate(_TABLE)


def lower(text: str) -> str:
    """Lower case, as many characters as `text`."""
    if text.isascii():
        return text.lower()
    return "".join(one if len(one) == 1 else char for char in text for one in (char.lower(),))
