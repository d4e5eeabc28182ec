"""Finds the draft model that the configuration names, and checks that it speaks of the same tokens.

Called before anything is loaded.
"""

from __future__ import annotations

from pathlib import Path

from novacron.config.engine import EngineConfig
from novacron.engine.model_path import resolve_model_path
from novacron.engine.tokenization import Tokenizer
from novacron.errors import ConfigError

_EXAMPLES_SHOWN = 3


def find_draft_model(config: EngineConfig, model_path: Path) -> Path | None:
    """The folder of the draft model; None if there shall be none.

    Raises ConfigError if its vocabulary is not that of the model in `model_path`, ModelLoadError if
    a file cannot be read.
    """
    method, name = config.speculative.speculative_method, config.speculative.speculative_model
    if method != "draft":
        if name:
            raise ConfigError(
                f"speculative_model is {name!r}, but speculative_method is {method}: set that to "
                "draft, or leave the model out."
            )
        return None
    draft_path = resolve_model_path(name)
    if draft_path.resolve() == model_path.resolve():
        raise ConfigError(
            "The draft model is the model itself, so guessing would take as long as computing. "
            "Name a smaller one with speculative_model, or set speculative_method to ngram or off."
        )
    tokenizer_path = Path(config.model.tokenizer or model_path)
    _check_same_tokens(Tokenizer.load(tokenizer_path), Tokenizer.load(draft_path), draft_path)
    return draft_path


def _check_same_tokens(mine: Tokenizer, drafts: Tokenizer, draft_path: Path) -> None:
    different = mine.vocabulary.ids.items() ^ drafts.vocabulary.ids.items()
    if different:
        tokens = sorted({token for token, _ in different})
        shown = ", ".join(map(repr, tokens[:_EXAMPLES_SHOWN]))
        raise _incompatible(
            draft_path,
            f"{len(tokens)} tokens are not in both, or have other numbers, such as {shown} "
            f"(sizes: {mine.vocab_size} and {drafts.vocab_size})",
        )
    special = sorted(mine.special_token_ids ^ drafts.special_token_ids)
    if special:
        raise _incompatible(draft_path, f"token {special[0]} is special in one of them only")


def _incompatible(draft_path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{draft_path} cannot guess for this model, because their vocabularies differ: {reason}. "
        "Choose a draft model of the same family with speculative_model."
    )
