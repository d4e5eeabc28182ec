"""`novacron serve` as an operator meets it: signals, exit codes, messages. With a real engine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from novacron.cli.listener import bind
from novacron.demo import bundled_model_path

_PATIENCE_S = 120.0
_SMALL = ("--kv-cache-memory", "64Mi", "--num-threads", "1")


class Process:
    """A running `novacron serve`. `lines` are those of its standard error so far."""

    def __init__(self, *args: str) -> None:
        environment = {name: v for name, v in os.environ.items() if "NOVACRON" not in name}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "novacron.cli.main", "serve", "--port", "0", *_SMALL, *args],
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {"NOVACRON_LOG_FORMAT": "text"},
        )
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, text: str) -> str:
        """The first line with `text`."""

        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        with self._said:
            assert self._said.wait_for(found, _PATIENCE_S), self.lines
        line = found()
        assert line is not None
        return line

    def ready(self) -> str:
        """The URL, once it serves."""
        words = self.wait_for("ready: ").split()
        return words[words.index("ready:") + 1]

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def exit_code(self) -> int:
        code = self._process.wait(_PATIENCE_S)
        self._reader.join()
        return code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._said:
                self.lines.append(line)
                self._said.notify_all()


@pytest.fixture
def serve() -> Iterator[Callable[..., Process]]:
    running: list[Process] = []

    def start(*args: str) -> Process:
        running.append(Process(*args))
        return running[-1]

    yield start
    for process in running:
        process.kill()


@contextmanager
def _generating(url: str, num_tokens: int) -> Iterator[Iterator[str]]:
    """The lines of a stream that has begun."""
    body = {"prompt": "One", "max_tokens": num_tokens, "ignore_eos": True, "stream": True}
    with (
        httpx2.Client(base_url=url, timeout=_PATIENCE_S) as client,
        client.stream("POST", "/v1/completions", json=body) as response,
    ):
        lines = response.iter_lines()
        assert next(lines).startswith("data: {")
        yield lines


def test_the_first_signal_finishes_running_work(serve) -> None:
    process = serve()
    url = process.ready()
    with _generating(url, 300) as lines:
        process.send(signal.SIGTERM)
        process.wait_for("finishing running requests")
        refused = httpx2.post(f"{url}/v1/completions", json={"prompt": "Two"})
        assert refused.status_code == 503
        assert httpx2.get(f"{url}/ready").status_code == 503
        text = "".join(lines)
    assert '"finish_reason":"length"' in text
    assert text.endswith("data: [DONE]")
    assert process.exit_code() == 0


def test_the_second_signal_ends_at_once(serve) -> None:
    process = serve()
    with _generating(process.ready(), 3000) as lines:
        process.send(signal.SIGTERM)
        process.wait_for("finishing running requests")
        process.send(signal.SIGINT)
        text = "".join(lines)
    assert '"error"' in text
    assert process.exit_code() == 130


def test_work_that_takes_too_long_is_cut_off_and_told(serve) -> None:
    process = serve("--shutdown-timeout", "100ms")
    with _generating(process.ready(), 3000) as lines:
        process.send(signal.SIGTERM)
        text = "".join(lines)
    assert '"finish_reason":"length"' not in text
    assert process.exit_code() == 1
    assert "did not finish within 0.1 s" in process.lines[-1]


def test_a_signal_while_loading_ends_it(serve) -> None:
    process = serve()
    process.wait_for("loading: ")
    process.send(signal.SIGTERM)
    assert process.exit_code() == 0


def test_a_taken_port_is_told_before_anything_is_loaded(serve) -> None:
    with bind("127.0.0.1", 0) as listener:
        port = str(listener.getsockname()[1])
        process = serve("--port", port)
        assert process.exit_code() == 2
    assert process.lines == [
        f"Error: port is {port}: another program listens there. Stop it, or choose another --port "
        "(0: any).\n"
    ]


@pytest.mark.parametrize(
    ("file", "num_bytes"), [("model.safetensors", 1000), ("tokenizer.json", 0), ("config.json", 5)]
)
def test_a_broken_model_is_named(serve, tmp_path: Path, file: str, num_bytes: int) -> None:
    folder = shutil.copytree(bundled_model_path(), tmp_path / "model")
    os.truncate(folder / file, num_bytes)
    process = serve(str(folder))
    assert process.exit_code() == 1
    assert process.lines[-1].startswith("Error: ")
    assert file in process.lines[-1]


def test_a_background_server_answers_a_pipe() -> None:
    command = [sys.executable, "-m", "novacron.cli.main", "complete", "--model", "", *_SMALL[2:]]
    result = subprocess.run(
        [*command, "--max-tokens", "3", "--stats"],
        input="One",
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
    )
    assert result.returncode == 0, result.stderr
    assert "3 generated" in result.stderr
