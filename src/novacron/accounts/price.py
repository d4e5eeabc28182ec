"""What tokens cost. Pure.

Prices are millionths of the currency for a million tokens; so a token's price, and any cost, is a
whole number of millionths of a millionth (pico), and sums never round.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from novacron.accounts.posting import Usage

PICO: Final = 10**12
_MICRO: Final = 10**6


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one model, in millionths of the currency for a million tokens."""

    prompt_micro: int = 0
    cached_micro: int = 0
    output_micro: int = 0


FREE: Final = Price()


def cost_pico(price: Price, usage: Usage) -> int:
    """Cached tokens of a prompt have a price of their own."""
    computed = usage.prompt_tokens - usage.cached_tokens
    return (
        computed * price.prompt_micro
        + usage.cached_tokens * price.cached_micro
        + usage.output_tokens * price.output_micro
    )


def micro_of(text: str) -> int:
    """`0.15` as millionths. Raises ValueError for what is no price, or finer than that."""
    try:
        micro = Decimal(text) * _MICRO
    except InvalidOperation:
        raise ValueError(f"{text!r} is no number; give a price such as 0.15") from None
    if not micro.is_finite() or micro < 0 or micro != int(micro):
        raise ValueError(f"{text!r} is no price: give 0 or more, with at most 6 decimals")
    return int(micro)


def text_of_pico(pico: int) -> str:
    """Exactly, without an exponent and without zeros that say nothing."""
    text = format(Decimal(pico) / PICO, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
