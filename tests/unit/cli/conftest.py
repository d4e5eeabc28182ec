"""A little server that answers like one of ours, for the commands that talk to one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner, Result

from novacron.cli.main import cli

Answer = tuple[int, object]


class FakeApi:
    """Answers from `routes`, by "METHOD path"; a list is streamed as events, a function is called
    with the body. Remembers what was asked, and how often each thing."""

    def __init__(self) -> None:
        self.routes: dict[str, object] = {
            "GET /v1/models": {"data": [{"id": "tiny"}]},
            "POST /v1/chat/completions": chat_events("Paris", " it is."),
            "POST /v1/completions": completion_events(" was", " a king."),
        }
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, Any]] = []
        self.keys: set[str | None] = set()
        self.url = ""

    def answer(self, method: str, path: str, body: object) -> Answer:
        self.asked.append((path, body))
        found = self.routes.get(f"{method} {path}", (404, {"error": {"message": "no such path"}}))
        if callable(found):
            found = found(body)
        return found if isinstance(found, tuple) else (200, found)


def chat_events(*texts: str) -> list[object]:
    events: list[object] = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
    events += [{"choices": [{"delta": {"content": text}}]} for text in texts]
    return [*events, {"choices": [{"delta": {}, "finish_reason": "stop"}]}, _usage(len(texts))]


def completion_events(*texts: str) -> list[object]:
    return [*({"choices": [{"text": text}]} for text in texts), _usage(len(texts))]


def _usage(num_output_tokens: int) -> object:
    details = {"cached_tokens": 4}
    usage = {"prompt_tokens": 7, "completion_tokens": num_output_tokens}
    return {"choices": [], "usage": {**usage, "prompt_tokens_details": details}}


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply("GET")

        def do_DELETE(self) -> None:
            self._reply("DELETE")

        def do_POST(self) -> None:
            self._reply("POST")

        def _reply(self, method: str) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length) or b"null")
            api.keys.add(self.headers.get("authorization"))
            status, answer = api.answer(method, self.path, body)
            self.send_response(status)
            for name, value in api.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if isinstance(answer, list):
                for event in [*answer, "[DONE]"]:
                    data = event if isinstance(event, str) else json.dumps(event)
                    self.wfile.write(f": a comment\n\ndata: {data}\n\n".encode())
            else:
                text = answer if isinstance(answer, str) else json.dumps(answer)
                self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def novacron(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `novacron` with these arguments, and without settings from the environment."""
    for name in ("NOVACRON_API_KEY", "VLLM_API_KEY", "NOVACRON_CONFIG"):
        monkeypatch.delenv(name, raising=False)

    def run(*args: str, input: str | None = None) -> Result:
        return CliRunner().invoke(cli, args, input=input, catch_exceptions=False)

    return run
