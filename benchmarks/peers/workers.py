"""Engines in processes and environments of their own, asked over a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.plan import Contestant, Demands

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-peers"
_PROGRAMS = {
    "novacron": "with_novacron",
    "llama.cpp": "with_llama_cpp",
    "openvino": "with_openvino",
    "transformers": "with_transformers",
}
_CONVERTING = {"llama.cpp", "openvino"}  # the others read the folder as it is
_LONGEST_ANSWER_S = {"prepare": 7200.0, "serve": 900.0}


class NotMeasured(Exception):
    """This contestant cannot do this. The message is a line for the report."""


@dataclass(frozen=True)
class Answer:
    tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Place:
    """Which weights, and where converted ones and logs go."""

    folder: Path
    cache: Path
    threads: int


def prepare(place: Place, contestant: Contestant, precision: str) -> None:
    """Convert the weights, where that was not done before. Raises NotMeasured."""
    if contestant.engine not in _CONVERTING:
        return
    with Worker(place, contestant, precision, "prepare") as worker:
        worker.read()


class Worker:
    """A contestant with its model, alive until the block is left. Raises NotMeasured."""

    def __init__(self, place: Place, contestant: Contestant, precision: str, *more: str) -> None:
        self.contestant = contestant
        self.version = ""
        python, environment = _environment(contestant.engine, place.threads)
        if not python.exists():
            raise NotMeasured("its environment is missing; run `make bench-peers`")
        program = f"benchmarks.peers.adapters.{_PROGRAMS[contestant.engine]}"
        verb, *rest = more
        place.cache.mkdir(parents=True, exist_ok=True)
        self._longest_s = _LONGEST_ANSWER_S[verb]
        self._log_path = place.cache / f"{contestant.engine}-{precision}-{verb}.log"
        command = [python, "-m", program, verb, place.folder, precision, place.cache, *rest]
        with self._log_path.open("w") as log:
            self._process = subprocess.Popen(
                list(map(str, command)),
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ready(self) -> None:
        self.version = str(self.read()["ready"])

    def ask(self, question: Mapping[str, Any]) -> Answer:
        self.send(question)
        answer = self.read()
        return Answer(answer["tokens"], answer["seconds"])

    def send(self, question: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # what it said last explains why

    def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        watch = threading.Timer(self._longest_s, self._process.kill)
        watch.start()
        line = self._process.stdout.readline()
        watch.cancel()
        if not line:
            code = self._process.wait()
            raise NotMeasured(f"its process ended with {code}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            raise NotMeasured(answer["refused"])
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _last_words(self) -> str:
        lines = self._log_path.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def serving(place: Place, contestant: Contestant, precision: str, asked: Demands) -> Worker:
    """A worker that loads its model; `wait_ready` tells when it has."""
    limits = {"threads": place.threads, **asdict(asked), "options": dict(contestant.options)}
    return Worker(place, contestant, precision, "serve", json.dumps(limits))


def llama_server() -> Path:
    return ENVIRONMENT / "llama.cpp" / "bin" / "llama-server"


def _environment(engine: str, threads: int) -> tuple[Path, dict[str, str]]:
    """The Python that has the engine, and what its process is told."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    if engine == "novacron":
        return Path(sys.executable), environment
    environment["LLAMA_CPP_LIB_PATH"] = str(ENVIRONMENT / "llama.cpp" / "bin")
    return ENVIRONMENT / "bin" / "python", environment
