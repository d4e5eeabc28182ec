"""What the harness asks of an engine, and the loop that answers it. Standard library only.

    python -m benchmarks.peers.adapters.with_ENGINE prepare FOLDER PRECISION CACHE
    python -m benchmarks.peers.adapters.with_ENGINE serve FOLDER PRECISION CACHE LIMITS

`prepare` converts the Hugging Face folder into what the engine reads, once, under CACHE. `serve`
loads it and then answers one line of JSON on standard output per line of JSON on standard input.
An adapter runs in its engine's own environment and knows nothing of NovaCron.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Prompt = list[int]


class Refused(Exception):
    """The engine cannot do this. The message says why, in a line."""


@dataclass(frozen=True)
class Limits:
    """What the engine will be asked for at most, and how many threads it may use."""

    threads: int
    streams: int
    tokens_per_stream: int  # prompt and output
    tokens: int  # of all streams at once
    options: dict[str, Any] = field(default_factory=dict)  # engine's own, by name


class Engine(Protocol):
    """A model, loaded."""

    def prefill(self, prompt: Prompt) -> float:
        """Seconds until the first token of a prompt that was never seen before."""
        ...

    def decode(self, prompts: list[Prompt], num_tokens: int) -> tuple[int, float]:
        """Greedy tokens of all prompts together, and the seconds they took.

        Timed from when every prompt has its first token; about `num_tokens` more of each. Keys and
        values of the prompts may be kept from an earlier call.
        """
        ...


class Adapter(Protocol):
    name: str

    def prepare(self, folder: Path, precision: str, cache: Path) -> None:
        """Raises Refused."""
        ...

    def load(self, folder: Path, precision: str, cache: Path, limits: Limits) -> Engine:
        """Raises Refused."""
        ...

    def version(self) -> str: ...


def run(adapter: Adapter) -> None:
    """The main program of every adapter."""
    verb, folder, precision, cache = sys.argv[1:5]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    try:
        if verb == "prepare":
            adapter.prepare(Path(folder), precision, Path(cache))
            _reply(replies, {"ready": adapter.version()})
        else:
            limits = Limits(**json.loads(sys.argv[5]))
            engine = adapter.load(Path(folder), precision, Path(cache), limits)
            _reply(replies, {"ready": adapter.version()})
            _serve(engine, replies)
    except Refused as refused:
        _reply(replies, {"refused": str(refused)})


def _serve(engine: Engine, replies: Any) -> None:
    for line in sys.stdin:
        question = json.loads(line)
        answer: dict[str, Any]
        try:
            if question["do"] == "prefill":
                seconds = engine.prefill(question["prompt"])
                answer = {"tokens": len(question["prompt"]), "seconds": seconds}
            else:
                tokens, seconds = engine.decode(question["prompts"], question["num_tokens"])
                answer = {"tokens": tokens, "seconds": seconds}
        except Exception as error:  # one scenario that fails must not end the others
            traceback.print_exc()
            answer = {"refused": f"{type(error).__name__}: {error}".splitlines()[0]}
        _reply(replies, answer)


def _reply(replies: Any, answer: dict[str, Any]) -> None:
    replies.write(json.dumps(answer) + "\n")
    replies.flush()
