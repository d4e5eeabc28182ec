"""What clients ask while faults strike: calls of all kinds, and what came back of each. Pure.

Answers are compared as a client has them at the end, so that how they were cut into pieces does not
count, nor what is drawn anew each time (ids, the share of the prompt that was cached).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from novacron.bench.http_client import Exchange
from novacron.bench.transcript import events
from novacron.demo import bundled_model_path

Outcome = Literal["same", "lost", "duplicated", "differing"]

_TEMPLATE_START = "{{- bos_token -}}"
_TEACHES_TOOLS = (
    "{%- if tools -%}<|system|>Answer with <tool_call>JSON</tool_call>. "
    "Functions: {{ tools | tojson }}<|end|>{%- endif -%}"
)
_SUBJECTS = ("mountains", "rivers", "bread", "chess", "the sea", "trains", "bees", "winter")
_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 60},
        "numbers": {"type": "array", "items": {"type": "integer"}, "minItems": 8, "maxItems": 24},
    },
    "required": ["name", "numbers"],
    "additionalProperties": False,
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "remember",
        "description": "Keep a note.",
        "parameters": {
            "type": "object",
            "properties": {"note": {"type": "string", "minLength": 40, "maxLength": 120}},
            "required": ["note"],
        },
    },
}


@dataclass(frozen=True)
class ChaosCall:
    """One call: its kind, for people, and what is sent where."""

    kind: str
    path: str
    body: Mapping[str, Any]

    def encoded(self, model: str) -> bytes:
        return msgspec.json.encode({"model": model, **self.body})


def make_calls(num: int, max_tokens: int, seed: int, kinds: Sequence[str] = ()) -> list[ChaosCall]:
    """`num` calls of these kinds (none named: of all) in turn, with prompts and sampling seeds of
    their own."""
    draw = random.Random(seed)
    kinds = kinds or KINDS
    return [
        _streamed(kind, _MAKERS[kind](draw, max_tokens))
        for kind in (kinds[place % len(kinds)] for place in range(num))
    ]


def with_tools(folder: Path) -> Path:
    """A file in `folder` with the bundled model's chat template, made to teach tools."""
    template = (bundled_model_path() / "chat_template.jinja").read_text()
    start, rest = template[: len(_TEMPLATE_START)], template[len(_TEMPLATE_START) :]
    assert start == _TEMPLATE_START
    path = folder / "chat_template.jinja"
    path.write_text(start + _TEACHES_TOOLS + rest)
    return path


def _streamed(kind: str, call: tuple[str, dict[str, Any]]) -> ChaosCall:
    path, body = call
    if path != "/v1/embeddings" and kind != "whole":
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return ChaosCall(kind, path, body)


def _prompt(draw: random.Random) -> str:
    return f"Tell me {draw.randrange(2, 99)} things about {draw.choice(_SUBJECTS)}."


def _sampled(draw: random.Random, max_tokens: int) -> dict[str, Any]:
    return {
        "max_tokens": max_tokens - draw.randrange(max_tokens // 2),
        "temperature": draw.choice((0.0, 0.7, 1.0)),
        "seed": draw.getrandbits(31),
        "ignore_eos": True,
    }


def _chat(draw: random.Random, max_tokens: int, **more: Any) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": _prompt(draw)}]
    body = {"messages": messages, **_sampled(draw, max_tokens), **more}
    return "/v1/chat/completions", body


def _completion(draw: random.Random, max_tokens: int, **more: Any) -> tuple[str, dict[str, Any]]:
    body = {"prompt": _prompt(draw), **_sampled(draw, max_tokens), **more}
    return "/v1/completions", body


def _embedding(draw: random.Random, max_tokens: int) -> tuple[str, dict[str, Any]]:
    return "/v1/embeddings", {"input": _prompt(draw) * 20}


_MAKERS: Mapping[str, Callable[[random.Random, int], tuple[str, dict[str, Any]]]] = {
    "chat": _chat,
    "completion": lambda d, m: _completion(d, m, frequency_penalty=0.5, stop=["zebra crossing"]),
    "logprobs": lambda d, m: _chat(d, m, logprobs=True, top_logprobs=3),
    "n=2": lambda d, m: _chat(d, m // 2, n=2),
    "prompt logprobs": lambda d, m: _completion(d, m, logprobs=2, echo=True),
    "JSON schema": lambda d, m: _chat(
        d, m, ignore_eos=False,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": _SCHEMA}},
    ),
    "tool": lambda d, m: _chat(d, m, ignore_eos=False, tools=[_TOOL], tool_choice="required"),
    "whole": _chat,
    "embedding": _embedding,
}  # fmt: skip


KINDS: Final = tuple(_MAKERS)


@dataclass
class _ChoiceParts:
    """One choice of an answer, put together."""

    text: list[str] = field(default_factory=list)
    tools: dict[int, list[str]] = field(default_factory=dict)
    logprobs: list[Any] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def add(self, choice: Mapping[str, Any]) -> None:
        said = choice.get("delta") or choice.get("message") or {}
        self.text.append(said.get("content") or choice.get("text") or "")
        for place, tool in enumerate(said.get("tool_calls") or ()):
            function = tool.get("function", {})
            parts = self.tools.setdefault(tool.get("index", place), [])
            parts += (function.get("name") or "", function.get("arguments") or "")
        logprobs = choice.get("logprobs") or {}
        self.logprobs += logprobs.get("content") or ()
        self.logprobs += zip(
            logprobs.get("tokens") or (), logprobs.get("token_logprobs") or (), strict=True
        )
        if choice.get("finish_reason"):
            self.ends.append(choice["finish_reason"])

    def whole(self) -> tuple[Any, ...]:
        tools = {place: "".join(parts) for place, parts in self.tools.items()}
        return "".join(self.text), tools, self.logprobs, self.ends


@dataclass(frozen=True)
class Answer:
    """What a client has at the end. `error` is set if it has no whole answer."""

    content: Any = None
    num_output_tokens: int = 0
    error: str | None = None


def read_answer(exchange: Exchange) -> Answer:
    if not exchange.ok:
        told = exchange.body[:200].decode("utf-8", "replace")
        return Answer(error=exchange.error or f"status {exchange.status}: {told}")
    try:
        is_stream = exchange.body.lstrip().startswith((b"data:", b":"))
        pieces = [data for _, data in events(exchange.chunks)] if is_stream else [exchange.body]
        messages = [msgspec.json.decode(one) for one in pieces if one != b"[DONE]"]
    except msgspec.DecodeError as error:
        return Answer(error=f"the answer is no JSON: {error}")
    choices: dict[int, _ChoiceParts] = {}
    usage: Mapping[str, Any] = {}
    vectors = []
    for message in messages:
        if message.get("error"):
            return Answer(error=str(message["error"].get("message")))
        usage = message.get("usage") or usage
        vectors += [one["embedding"] for one in message.get("data") or ()]
        for choice in message.get("choices") or ():
            choices.setdefault(choice["index"], _ChoiceParts()).add(choice)
    if not vectors and not (choices and all(parts.ends for parts in choices.values())):
        return Answer(error="the answer has no end")
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    wholes = [choices[index].whole() for index in sorted(choices)]
    return Answer((wholes, vectors, counts), usage.get("completion_tokens") or 0)


def compare(expected: Answer, answer: Answer) -> Outcome:
    """What became of a call whose answer should have been `expected`."""
    if answer.error is not None:
        return "lost"
    if answer.content == expected.content:
        return "same"
    return "duplicated" if answer.num_output_tokens > expected.num_output_tokens else "differing"


def count(outcomes: list[Outcome]) -> dict[str, int]:
    counted = Counter(outcomes)
    return {name: counted[name] for name in ("same", "lost", "duplicated", "differing")}
