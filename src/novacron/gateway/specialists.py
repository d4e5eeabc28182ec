"""Specialists: names under which requests get a system prompt and sampling of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from novacron.config.specialists import SpecialistConfig
from novacron.errors import ConfigError, InvalidRequest
from novacron.gateway.openai.schema import (
    Body,
    ChatBody,
    ChatMessage,
    EmbeddingBody,
    GenerationBody,
)

AnyBody = TypeVar("AnyBody", bound=Body)

_ALLOWED: Final = frozenset(
    "max_tokens temperature top_p top_k min_p stop seed frequency_penalty presence_penalty "
    "repetition_penalty min_tokens response_format quality_preference quantization".split()
)


@dataclass(frozen=True, kw_only=True)
class Specialist:
    """`sampling` are fields for requests that do not set them. `guardians`: None for all."""

    name: str
    model: str
    system: str
    sampling: Mapping[str, Any]
    guardians: frozenset[str] | None
    fallback: tuple[str, ...]
    on_error: bool
    on_block: bool

    def applied(self, body: AnyBody) -> AnyBody:
        """The system prompt goes before the client's own. Raises InvalidRequest for a text
        completion, which has no place for one."""
        if isinstance(body, EmbeddingBody) or not isinstance(body, GenerationBody):
            return body
        changes = {
            name: getattr(self._typed(), name)
            for name in self.sampling
            if getattr(body, name, None) is None
        }
        if isinstance(body, ChatBody):
            if body.max_completion_tokens is not None:
                changes.pop("max_tokens", None)
            if self.system:
                changes["messages"] = [
                    ChatMessage(role="system", content=_joined(self.system, body)),
                    *(m for i, m in enumerate(body.messages) if i or m.role != "system"),
                ]
        elif self.system:
            raise InvalidRequest(
                f"'{self.name}' is a specialist with a system prompt: it answers chats. Send "
                "messages to the chat endpoint.",
                param="model",
            )
        return body.model_copy(update=changes)

    def _typed(self) -> GenerationBody:
        return GenerationBody.model_validate(dict(self.sampling))


def make_specialists(
    configs: tuple[SpecialistConfig, ...], model_names: tuple[str, ...]
) -> dict[str, Specialist]:
    """Raises ConfigError for names that are taken or not known, and sampling that is wrong."""
    known = {*model_names, *(one.name for one in configs)}
    for one in configs:
        _check(one, model_names, known)
    return {
        one.name: Specialist(
            name=one.name,
            model=one.model or model_names[0],
            system=one.system,
            sampling=one.sampling,
            guardians=None if one.guardians is None else frozenset(one.guardians),
            fallback=one.fallback,
            on_error="error" in one.fallback_on,
            on_block="block" in one.fallback_on,
        )
        for one in configs
    }


def _check(one: SpecialistConfig, model_names: tuple[str, ...], known: set[str]) -> None:
    if one.name in model_names:
        raise ConfigError(f"specialists cannot be used: '{one.name}' is the model's own name.")
    for name in (one.model, *one.fallback):
        base = name.partition("@")[0]
        if name and base not in known:
            raise ConfigError(
                f"specialists cannot be used: '{one.name}' names '{name}', which is not served. "
                f"There are {', '.join(sorted(known))}."
            )
    for name in one.sampling:
        if name not in _ALLOWED:
            raise ConfigError(
                f"specialists cannot be used: sampling of '{one.name}' has an unknown key "
                f"'{name}'; there are {', '.join(sorted(_ALLOWED))}."
            )
    try:
        GenerationBody.model_validate(dict(one.sampling))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"specialists cannot be used: sampling of '{one.name}': "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}."
        ) from None


def _joined(system: str, body: ChatBody) -> str:
    """With the client's own system message behind it: templates take only one."""
    first = body.messages[0]
    if first.role != "system":
        return system
    own = first.content
    text = own if isinstance(own, str) else "\n".join(p.text or "" for p in own or ())
    return f"{system}\n\n{text}"
