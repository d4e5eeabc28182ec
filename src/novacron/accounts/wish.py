"""What a call asks for, and what its quotas leave of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from novacron.accounts.quota import Quota
from novacron.errors import Forbidden, InvalidRequest


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A call: for each of its requests the tokens of its prompt and the longest answer that it
    names, None: as long as there is room. `n` requests after each other share a prompt, which
    counts once. `model_len` is the context of the model.
    """

    prompts: tuple[int, ...]
    answers: tuple[int | None, ...]
    model: str
    model_len: int
    variant: str = ""
    n: int = 1


class Allowed(msgspec.Struct, frozen=True):
    """The longest answers, one for each request, and the most tokens that the call may take."""

    answers: tuple[int, ...]
    tokens: int


Limits = Sequence[tuple[str, Quota]]  # subjects and what they may


def allow(wish: Wish, limits: Limits) -> Allowed:
    """Answers that name no length get that of the quotas. Raises Forbidden or InvalidRequest, with
    the subject, for what no waiting changes."""
    for subject, quota in limits:
        check_names(subject, quota, wish.model, wish.variant)
    answers = tuple(
        _default_answer(wish, limits, prompt) if answer is None else answer
        for prompt, answer in zip(wish.prompts, wish.answers, strict=True)
    )
    tokens = sum(wish.prompts[:: wish.n]) + sum(answers)
    context = max(p + a for p, a in zip(wish.prompts, answers, strict=True))
    for subject, quota in limits:
        _check_length(subject, "context_tokens", quota.context_tokens, context)
        _check_length(subject, "answer_tokens", quota.answer_tokens, max(answers))
        _check_length(subject, "tokens_per_day", quota.tokens_per_day, tokens)
        _check_length(subject, "tokens_per_minute", quota.tokens_per_minute, tokens)
    return Allowed(answers, tokens)


def _default_answer(wish: Wish, limits: Limits, prompt: int) -> int:
    rooms = [wish.model_len - prompt]
    for _, quota in limits:
        if quota.answer_tokens is not None:
            rooms.append(quota.answer_tokens)
        if quota.context_tokens is not None:
            rooms.append(quota.context_tokens - prompt)
    return max(1, min(rooms))


def check_names(subject: str, quota: Quota, model: str, variant: str) -> None:
    """Raises Forbidden for names that the subject's quota does not have."""
    for what, name, allowed in (
        ("model", model, quota.models),
        ("precision", variant, quota.variants),
    ):
        if allowed and name not in allowed:
            raise Forbidden(
                f"The quota of {subject} does not allow the {what} '{name}'. Allowed: "
                f"{', '.join(allowed)}."
            )


def _check_length(subject: str, limit: str, most: int | None, wanted: int) -> None:
    if most is not None and wanted > most:
        raise InvalidRequest(
            f"The request may take {wanted} tokens, and the quota of {subject} is {limit}={most}: "
            "it could never run. Shorten the prompt or lower max_tokens.",
            param="max_tokens",
        )
