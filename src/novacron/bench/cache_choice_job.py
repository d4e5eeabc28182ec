"""What crosses between the bench and cache_choice_trials, each as a line of JSON: a ChoiceJob in;
out a Trial for each prefix that was tried, in order."""

from __future__ import annotations

from typing import Final

import msgspec

from novacron.engine.engine_arguments import EngineArguments

MODES: Final = ("compute", "fetch", "chosen")


class ChoiceJob(msgspec.Struct, frozen=True):
    """Prompts are tried in order: `(prefix, suffixes)`, as many suffixes as turns with each mode,
    and one more, with which the prefix is computed for the first time."""

    arguments: EngineArguments
    prompts: tuple[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]], ...]


class Trial(msgspec.Struct, frozen=True):
    """Seconds to the first token by mode, in the order of MODES, one for each turn; and how many
    blocks the choice had fetched in its turns, of how many that the tier had."""

    prefix_tokens: int
    first_token_s: tuple[tuple[float, ...], ...]
    num_fetched: tuple[int, ...]
    num_there: tuple[int, ...]
