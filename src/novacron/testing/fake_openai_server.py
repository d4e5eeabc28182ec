"""A small OpenAI-compatible server over real sockets that recites instead of computing.

For tests of what talks to any such server: `novacron bench`, above all. Answers the routes a client
of ours asks (models, both completions, health, ready, metrics) and nothing else. In a thread by
`running()`, or as a process: `python -m novacron.testing.fake_openai_server --port N`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

_METRICS = """# TYPE novacron_steps counter
novacron_steps_total{{model_name="fake"}} {steps}
# TYPE novacron_step_seconds counter
novacron_step_seconds_total{{model_name="fake"}} {seconds}
# TYPE vllm:request_queue_time_seconds histogram
vllm:request_queue_time_seconds_bucket{{model_name="fake",le="+Inf"}} {steps}
vllm:request_queue_time_seconds_count{{model_name="fake"}} {steps}
vllm:request_queue_time_seconds_sum{{model_name="fake"}} {seconds}
# TYPE novacron_startup_phase_seconds gauge
novacron_startup_phase_seconds{{phase="import"}} 0.5
"""
_PROMPT_TOKENS = 20
_CACHED_TOKENS = 16
_END = {"text": "", "finish_reason": "length"}

Json = dict[str, Any]


@dataclass
class FakeOpenAIServer:
    """Says "w0 w1 w2 ...", a token per event, or what `answer` makes of the request.

    Remembers the `bodies` it was sent; a prompt counts as cached from the second time on. With
    another `status` it refuses; with `close_after_events` it breaks every stream off.
    """

    answer: Callable[[Json], str] | None = None
    status: int = 200
    close_after_events: int | None = None
    bodies: list[Json] = field(default_factory=list)
    num_connections: int = 0
    url: str = ""
    _seen: set[str] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until the client closes it."""
        self.num_connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                await self._exchange(reader, writer)
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, _ = head.split(" ", 2)
        length = head.lower().partition("content-length: ")[2].split("\r\n")[0]
        body = await reader.readexactly(int(length or 0))
        if method == "POST":
            await self._generate(path, json.loads(body), writer)
        elif path.endswith(("/health", "/ready")):
            _reply(writer, 200, "{}")
        elif path.endswith("/v1/models"):
            _reply(writer, 200, '{"data": [{"id": "fake"}]}')
        elif path.endswith("/metrics"):
            steps = len(self.bodies)
            _reply(writer, 200, _METRICS.format(steps=steps, seconds=steps * 0.004))
        else:
            _reply(writer, 404, '{"error": {"message": "no such route"}}')

    async def _generate(self, path: str, body: Json, writer: asyncio.StreamWriter) -> None:
        self.bodies.append(body)
        if self.status != 200:
            _reply(writer, self.status, '{"error": {"message": "go away"}}')
            return
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number, event in enumerate(self._events(path, body)):
            if number == self.close_after_events:
                writer.close()
                return
            data = f"data: {event}\n\n".encode()
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")

    def _events(self, path: str, body: Json) -> Iterator[str]:
        words = [f"w{n} " for n in range(body["max_tokens"])]
        if self.answer is not None:
            words = [self.answer(body)]
        is_chat = path.endswith("/chat/completions")
        if is_chat:
            yield _event({"delta": {"role": "assistant", "content": ""}})
        for word in words:
            yield _event({"delta": {"content": word}} if is_chat else {"text": word})
        yield _event({"delta": {}, "finish_reason": "length"} if is_chat else _END)
        usage = {
            "prompt_tokens": _PROMPT_TOKENS,
            "completion_tokens": len(words),
            "prompt_tokens_details": {"cached_tokens": self._cached_tokens(body)},
        }
        yield json.dumps({"choices": [], "usage": usage})
        yield "[DONE]"

    def _cached_tokens(self, body: Json) -> int:
        prompt = json.dumps(body.get("prompt") or body.get("messages"))
        cached = _CACHED_TOKENS if prompt in self._seen else 0
        self._seen.add(prompt)
        return cached


@contextlib.contextmanager
def running(server: FakeOpenAIServer) -> Iterator[FakeOpenAIServer]:
    """The server in a thread of its own, at its `url`, until the block ends."""
    listening = threading.Event()
    stop: list[Callable[[], object]] = []

    async def run() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
            server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            stop.append(lambda: loop.call_soon_threadsafe(ended.set))
            listening.set()
            await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="fake-openai-server")
    thread.start()
    listening.wait()
    try:
        yield server
    finally:
        stop[0]()
        thread.join()


def _reply(writer: asyncio.StreamWriter, status: int, text: str) -> None:
    writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())


def _event(choice: Json) -> str:
    return json.dumps({"choices": [{"index": 0, "finish_reason": None, **choice}]})


async def _serve_for_ever(host: str, port: int) -> None:
    async with await asyncio.start_server(FakeOpenAIServer().serve, host, port) as listener:
        await listener.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    asyncio.run(_serve_for_ever(arguments.host, arguments.port))


if __name__ == "__main__":
    main()
