"""From settings to guardians."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from novacron.config.guardians import GuardianConfig
from novacron.errors import ConfigError
from novacron.guardians import credentials, injection, pii
from novacron.guardians.canary import Canary, KnownAnswer
from novacron.guardians.degeneration import Degeneration
from novacron.guardians.format_validity import FormatRules, FormatValidity
from novacron.guardians.guardian import Duty, Guardian, SpanGuardian
from novacron.guardians.hook import Hook, Post
from novacron.guardians.intent import Embed, IntentAlignment
from novacron.guardians.judge import Ask, Judge
from novacron.guardians.records import Mode, Outcome, Stage
from novacron.guardians.words import word_entities, words_version

DEFAULT_STRIDE: Final = 200  # characters of a stream that are judged in one go
_INTENT_FLOOR: Final = 0.2
_CANARY_FLOOR: Final = 0.8
_ACTIONS: Final = {"flag": Outcome.FLAG, "mask": Outcome.MASK, "block": Outcome.BLOCK}


@dataclass(frozen=True, kw_only=True)
class Voices:
    """What guardians may use beyond themselves: the served model, and HTTP."""

    ask: Ask
    embed: Embed
    post: Post


def build_guardian(config: GuardianConfig, voices: Voices) -> Guardian:
    """Raises ConfigError for options that do not make sense."""
    duty, options = duty_of(config), config.options
    match config.kind:
        case "pii":
            return _pii(duty, options)
        case "secrets":
            return SpanGuardian(duty, credentials.CREDENTIALS, credentials.VERSION)
        case "injection":
            return SpanGuardian(duty, injection.INJECTION, injection.VERSION)
        case "words":
            words = _texts(config, "words")
            return SpanGuardian(duty, word_entities(words), words_version(words))
        case "degeneration":
            return Degeneration(duty)
        case "format":
            return FormatValidity(duty, _format_rules(config))
        case "intent":
            return IntentAlignment(duty, voices.embed, float(options.get("floor", _INTENT_FLOOR)))
        case "canary":
            floor = float(options.get("floor", _CANARY_FLOOR))
            return Canary(duty, voices.ask, _known_answers(config), floor)
        case "judge":
            return Judge(duty, voices.ask, options["rule"])
        case "http":
            return Hook(duty, voices.post, _url(config), options.get("token", ""))
    raise AssertionError(config.kind)


def duty_of(config: GuardianConfig) -> Duty:
    return Duty(
        name=config.name,
        stages=frozenset(map(Stage, config.stages)),
        mode=Mode(config.mode),
        action=_ACTIONS[config.action],
        timeout_s=config.timeout_s,
        share=config.share,
        budget=config.budget,
        stride=int(config.options.get("stride", DEFAULT_STRIDE)),
        is_cached=config.kind != "canary",
    )


def needs_http(configs: Iterable[GuardianConfig]) -> bool:
    return any(config.kind == "http" for config in configs)


def _pii(duty: Duty, options: Mapping[str, Any]) -> SpanGuardian:
    known = sorted({entity.kind for entity in pii.PII})
    wanted = [str(one).upper() for one in options.get("entities", known)]
    for one in wanted:
        if one not in known:
            raise ConfigError(
                f"guardians cannot be used: '{duty.name}' is to find {one}; it knows "
                f"{', '.join(known)}."
            )
    entities = tuple(entity for entity in pii.PII if entity.kind in wanted)
    return SpanGuardian(duty, entities, f"{pii.VERSION}:{','.join(sorted(wanted))}")


def _texts(config: GuardianConfig, option: str) -> list[str]:
    texts = config.options[option]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ConfigError(
            f"guardians cannot be used: {option} of '{config.name}' must be texts that are not "
            "empty."
        )
    return list(texts)


def _format_rules(config: GuardianConfig) -> FormatRules:
    fields = config.options.get("fields")
    known = FormatRules.type_names()
    for name, kind in (fields or {}).items():
        if kind not in known:
            raise ConfigError(
                f"guardians cannot be used: field {name} of '{config.name}' is of type {kind!r}; "
                f"there are {', '.join(known)}."
            )
    return FormatRules(
        is_json=bool(config.options.get("json", False)),
        fields=fields,
        most_characters=int(config.options.get("max_characters", 0)),
    )


def _known_answers(config: GuardianConfig) -> list[KnownAnswer]:
    known = []
    for one in config.options["questions"]:
        if not isinstance(one, Mapping) or set(one) != {"question", "answer"}:
            raise ConfigError(
                f"guardians cannot be used: questions of '{config.name}' must be a list of "
                "{question: ..., answer: ...}."
            )
        known.append(KnownAnswer(str(one["question"]), str(one["answer"])))
    return known


def _url(config: GuardianConfig) -> str:
    url = str(config.options["url"])
    if not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"guardians cannot be used: the url of '{config.name}' must begin with http:// or "
            "https://."
        )
    return url
