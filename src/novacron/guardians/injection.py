"""Texts that try to take over from the operator's instructions: the phrases they are made of.

Known phrasings and marks of templates, not meaning: what says it in words of its own gets through,
and is work for a judge (judge.py).
"""

from __future__ import annotations

from typing import Final

from novacron.guardians.folding import ZERO_WIDTH
from novacron.guardians.patterns import (
    GAP,
    Pattern,
    chars,
    either,
    not_before,
    seq,
    text,
    times,
    words,
)
from novacron.guardians.scanning import Entity

VERSION: Final = "1"

_LETTER: Final = "a-z"


def _phrase(first: Pattern, *more: Pattern) -> Pattern:
    """Parts with gaps between them that end with a word."""
    spaced = [part for one in more for part in (GAP, one)]
    return seq(first, *spaced, not_before(_LETTER))


def _opening(*alternatives: str) -> Pattern:
    """Words that a finding may begin with, not inside another one."""
    return words(*alternatives, after=_LETTER)


def _some(part: Pattern, most: int) -> Pattern:
    """Up to `most` of these words, each with the gap behind it."""
    return times(seq(part, GAP), 0, most)


_FILLER: Final = words(
    "the", "any", "of", "my", "and", "everything", "given", "safety", "other", "content", "in",
    "completely", "please", "you", "have", "were", "that", "been", "or",
)  # fmt: skip
_POINTER: Final = words(
    "previous", "prior", "above", "earlier", "preceding", "foregoing", "initial", "original",
    "system", "your", "these", "those", "all", "existing", "former", "current",
)  # fmt: skip
_RULES: Final = words(
    "instructions", "instruction", "prompts", "prompt", "rules", "guidelines", "directions",
    "directives", "commands", "constraints", "restrictions", "programming", "training", "policies",
)  # fmt: skip
_OVERRIDE: Final = _phrase(
    _opening(
        "ignore", "disregard", "forget", "override", "bypass", "do not follow", "don't follow",
        "stop following", "do not obey", "stop obeying", "pay no attention to",
    ),
    seq(
        _some(_FILLER, 3), _POINTER, GAP, _some(either(_POINTER, _FILLER), 4), _RULES
    ),
)  # fmt: skip
_FORGET_ALL: Final = _phrase(
    _opening("forget", "ignore", "disregard"),
    words("everything", "all", "what"),
    words(
        "you were told", "you have been told", "you know about your rules", "that was said above",
        "that came before", "said above", "written above", "i said before this", "you were taught",
    ),
)  # fmt: skip
_REVEAL: Final = _phrase(
    _opening(
        "reveal", "show", "print", "repeat", "output", "display", "tell", "give", "leak", "recite",
        "write out", "disclose", "dump", "paste", "what is", "what are", "what's",
    ),
    seq(
        _some(
            words(
                "me", "us", "your", "the", "exact", "full", "complete", "entire", "all", "of",
                "verbatim", "back", "to", "whole", "own", "everything in", "contents",
            ),
            6,
        ),
        words(
            "system prompt", "system message", "system instructions", "initial prompt",
            "initial instructions", "hidden instructions", "hidden prompt", "secret instructions",
            "secret prompt", "original instructions", "original prompt", "developer message",
            "prompt above", "instructions above", "pre prompt", "preprompt", "confidential prompt",
        ),
    ),
)  # fmt: skip
_UNBOUND: Final = words(
    "restrictions", "rules", "guidelines", "limits", "limitations", "filters", "censorship",
    "constraints", "ethics", "content policy", "moral guidelines", "ethical guidelines",
    "safety guidelines", "safety filters",
)  # fmt: skip
_PERSONA: Final = either(
    _phrase(
        _opening(
            "you are now", "act as", "pretend to be", "you will be", "roleplay as", "simulate"
        ),
        words(
            "dan", "a dan", "in developer mode", "in dan mode", "jailbroken", "unrestricted",
            "an unrestricted", "an uncensored", "uncensored", "an unfiltered", "unfiltered",
            "an evil", "free of all restrictions", "a jailbroken", "an ai without", "an amoral",
        ),
    ),
    _phrase(
        _opening("pretend", "imagine", "act as if", "act as though", "behave as if"),
        words("you have no", "you had no", "that you have no", "there are no", "you are free of"),
        _UNBOUND,
    ),
    _phrase(_opening("do anything now", "developer mode enabled", "enable developer mode",
                     "jailbreak mode", "dan mode", "enter developer mode", "god mode enabled")),
    _phrase(_opening("answer", "respond", "reply"), words("without any", "with no", "without"),
            _UNBOUND),
)  # fmt: skip
_MARKUP: Final = either(
    *map(
        text,
        (
            "<|im_start|>", "<|im_end|>", "<|system|>", "<|assistant|>", "<|eot_id|>",
            "<|start_header_id|>", "<|endoftext|>", "<<sys>>", "<</sys>>", "[inst]", "[/inst]",
            "<start_of_turn>", "<end_of_turn>", "[system_prompt]", "### system:",
            "### instruction:", "begin system prompt", "[system](#", "<system>",
        ),
    )
)  # fmt: skip

_PERSONA_NEEDS: Final = (
    "dan", "develop", "jailb", "restrict", "uncens", "unfilt", "evil", "amoral", " ai", "rules",
    "guideline", "limit", "filter", "censor", "constraint", "ethic", "policy", "anything", "god",
)  # fmt: skip

INJECTION: Final = (
    Entity(
        "OVERRIDE",
        _OVERRIDE,
        ignore_case=True,
        needs=(
            "instruct", "prompt", "rule", "guideline", "direct", "command", "constraint",
            "restrict", "programm", "training", "polic",
        ),
    ),
    Entity("OVERRIDE", _FORGET_ALL, ignore_case=True, needs=("forget", "ignore", "disregard")),
    Entity("REVEAL", _REVEAL, ignore_case=True, needs=("prompt", "instruct", "message")),
    Entity("PERSONA", _PERSONA, ignore_case=True, needs=_PERSONA_NEEDS),
    Entity("MARKUP", _MARKUP, ignore_case=True, needs=("<", "[", "#", "begin")),
    Entity("HIDDEN_TEXT", times(chars(ZERO_WIDTH), 4, 64), needs=(ZERO_WIDTH,)),
)  # fmt: skip
