"""Traces: which requests came when, and which blocks they were made of. No text is in them.

Two forms are read, both JSON lines. Ours begins with a line that says what it is:

    {"format": "novacron-cache-trace", "version": 1, "block_tokens": 256}
    {"t": 0.25, "prompt": 1300, "output": 120, "blocks": [7, 8, 9], "answer_blocks": [10],
     "session": "a", "scope": "chat"}

`t` is in seconds, `blocks` name the full blocks of the prompt and `answer_blocks` those that its
answer fills. A block's number stands for all tokens up to its end. Mooncake's public traces have
`timestamp` in milliseconds, `input_length`, `output_length` and `hash_ids`, one for 512 tokens.

Source: form of Mooncake's traces (Qin et al., FAST 2025; github.com/kvcache-ai/Mooncake).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from novacron.errors import ConfigError
from novacron.records.block import BlockHash

_FORMAT: Final = "novacron-cache-trace"
_VERSION: Final = 1
_MOONCAKE_BLOCK_TOKENS: Final = 512
_LEAST_GAP_S: Final = 1e-6


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """`blocks` in the order of their chain; the first `num_prompt_blocks` are the prompt's."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[BlockHash, ...]
    num_prompt_blocks: int
    session: bytes = b""
    scope: bytes = b""


@dataclass(frozen=True)
class Trace:
    """Requests by their arrival, no two at the same moment."""

    block_tokens: int
    requests: tuple[TraceRequest, ...]

    @property
    def num_blocks(self) -> int:
        """Different ones."""
        return len({key for request in self.requests for key in request.blocks})


def make_trace(block_tokens: int, requests: Iterable[TraceRequest]) -> Trace:
    """Sorted, and those that came together one right after the other."""
    last_s = float("-inf")
    apart: list[TraceRequest] = []
    for request in sorted(requests, key=lambda request: request.arrival_s):
        last_s = max(request.arrival_s, last_s + _LEAST_GAP_S)
        apart.append(
            TraceRequest(
                last_s,
                request.prompt_tokens,
                request.output_tokens,
                request.blocks,
                request.num_prompt_blocks,
                request.session,
                request.scope,
            )
        )
    return Trace(block_tokens, tuple(apart))


class _Head(msgspec.Struct):
    format: str
    version: int
    block_tokens: int


class _Line(msgspec.Struct):
    t: float
    prompt: int
    output: int
    blocks: list[int]
    answer_blocks: list[int] = []
    session: str = ""
    scope: str = ""


class _MooncakeLine(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int]


def read_trace(path: Path, limit: int | None = None) -> Trace:
    """At most `limit` requests of a file of either form. Raises ConfigError, with the line."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise ConfigError(f"{path} has no requests. Make one with novacron cache trace.")
    is_ours = b'"format"' in lines[0]
    block_tokens = _read_head(path, lines[0]) if is_ours else _MOONCAKE_BLOCK_TOKENS
    first = int(is_ours)
    read = _read_line if is_ours else _read_mooncake_line
    requests: list[TraceRequest] = []
    for number, line in enumerate(lines[first:][:limit], start=first + 1):
        try:
            requests.append(read(line, block_tokens))
        except (msgspec.MsgspecError, OverflowError, ValueError) as error:
            raise ConfigError(
                f"{path}, line {number} is no request: {error}. A line is "
                "{timestamp, input_length, output_length, hash_ids}, or as novacron cache trace "
                "writes it."
            ) from error
    if not requests:
        raise ConfigError(f"{path} has no requests. Make one with novacron cache trace.")
    return make_trace(block_tokens, requests)


def write_trace(trace: Trace, path: Path) -> None:
    """In our form."""
    lines = [encode_head(trace.block_tokens), *map(encode_request, trace.requests)]
    path.write_bytes(b"\n".join(lines) + b"\n")


def encode_head(block_tokens: int) -> bytes:
    """The first line of our form."""
    head = {"format": _FORMAT, "version": _VERSION, "block_tokens": block_tokens}
    return msgspec.json.encode(head)


def encode_request(request: TraceRequest) -> bytes:
    """A line of our form."""
    return msgspec.json.encode(_as_line(request))


def _as_line(request: TraceRequest) -> dict[str, Any]:
    numbers = _numbers(request.blocks)
    line: dict[str, Any] = {
        "t": round(request.arrival_s, 6),
        "prompt": request.prompt_tokens,
        "output": request.output_tokens,
        "blocks": numbers[: request.num_prompt_blocks],
    }
    if len(numbers) > request.num_prompt_blocks:
        line["answer_blocks"] = numbers[request.num_prompt_blocks :]
    for name in ("session", "scope"):
        if value := getattr(request, name):
            line[name] = value.decode()
    return line


def _read_head(path: Path, line: bytes) -> int:
    try:
        head = msgspec.json.decode(line, type=_Head)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path}, line 1 is not the head of a trace: {error}.") from error
    if (head.format, head.version) != (_FORMAT, _VERSION):
        raise ConfigError(
            f"{path} is {head.format} version {head.version}; {_FORMAT} version {_VERSION} is read."
        )
    if head.block_tokens < 1:
        raise ConfigError(f"{path}: block_tokens is {head.block_tokens}: it must be positive.")
    return head.block_tokens


def _read_line(line: bytes, block_tokens: int) -> TraceRequest:
    one = msgspec.json.decode(line, type=_Line)
    if len(one.blocks) * block_tokens > one.prompt:
        raise ValueError(f"{len(one.blocks)} full blocks are more than {one.prompt} tokens")
    return TraceRequest(
        one.t,
        one.prompt,
        one.output,
        _keys([*one.blocks, *one.answer_blocks]),
        len(one.blocks),
        one.session.encode(),
        one.scope.encode(),
    )


def _read_mooncake_line(line: bytes, block_tokens: int) -> TraceRequest:
    """The last hash may be that of a block that is not full, which is never stored."""
    one = msgspec.json.decode(line, type=_MooncakeLine)
    if len(one.hash_ids) > -(-one.input_length // block_tokens):
        raise ValueError(
            f"{len(one.hash_ids)} blocks of {block_tokens} tokens are more than {one.input_length}"
        )
    num_full = min(len(one.hash_ids), one.input_length // block_tokens)
    keys = _keys(one.hash_ids[:num_full])
    return TraceRequest(one.timestamp / 1000, one.input_length, one.output_length, keys, num_full)


def _keys(numbers: Sequence[int]) -> tuple[BlockHash, ...]:
    return tuple(BlockHash(number.to_bytes(8, "big")) for number in numbers)


def _numbers(keys: Sequence[BlockHash]) -> list[int]:
    return [int.from_bytes(key, "big") for key in keys]
