"""A small OpenAI-compatible server in a thread: real sockets, made-up tokens."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

METRICS = b"""# TYPE novacron_steps counter
novacron_steps_total{model_name="fake"} %d
# TYPE novacron_step_seconds counter
novacron_step_seconds_total{model_name="fake"} %f
# TYPE vllm:request_queue_time_seconds histogram
vllm:request_queue_time_seconds_bucket{model_name="fake",le="+Inf"} %d
vllm:request_queue_time_seconds_count{model_name="fake"} %d
vllm:request_queue_time_seconds_sum{model_name="fake"} %f
"""


@dataclass
class FakeServer:
    """Says "w0 w1 w2 ..."; remembers bodies. Prompts count as cached from the second time on."""

    bodies: list[dict[str, Any]] = field(default_factory=list)
    num_connections: int = 0
    status: int = 200
    answer: Callable[[dict[str, Any]], str] | None = None
    close_after_events: int | None = None
    url: str = ""
    _seen: set[str] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head, reader, writer)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        method, path, _ = head.split(b" ", 2)
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        body = await reader.readexactly(length)
        if method == b"POST":
            await self._generate(path.decode(), json.loads(body), writer)
        elif path.endswith(b"/v1/models"):
            self._plain(writer, 200, b'{"data": [{"id": "fake"}]}')
        elif path.endswith(b"/metrics"):
            count = len(self.bodies)
            self._plain(writer, 200, METRICS % (count, count * 0.004, count, count, count * 0.001))
        else:
            self._plain(writer, 404, b'{"error": {"message": "no such route"}}')

    def _plain(self, writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)

    async def _generate(
        self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        self.bodies.append(body)
        if self.status != 200:
            self._plain(writer, self.status, b'{"error": {"message": "go away"}}')
            return
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number, event in enumerate(self._events(path, body)):
            if number == self.close_after_events:
                writer.close()
                return
            data = b"data: " + event + b"\n\n"
            writer.write(b"%x\r\n" % len(data) + data + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")

    def _events(self, path: str, body: dict[str, Any]) -> Iterator[bytes]:
        text = self.answer(body) if self.answer else None
        words = [text] if text is not None else [f"w{n} " for n in range(body["max_tokens"])]
        is_chat = path.endswith("chat/completions")
        if is_chat:
            yield _event({"delta": {"role": "assistant", "content": ""}})
        for word in words:
            yield _event({"delta": {"content": word}} if is_chat else {"text": word})
        yield _event({"delta": {}, "finish_reason": "length"} if is_chat else _END)
        prompt = json.dumps(body.get("prompt") or body.get("messages"))
        cached = 16 if prompt in self._seen else 0
        self._seen.add(prompt)
        usage = {
            "prompt_tokens": 20,
            "completion_tokens": len(words),
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        yield json.dumps({"choices": [], "usage": usage}).encode()
        yield b"[DONE]"


_END = {"text": "", "finish_reason": "length"}


def _event(choice: dict[str, Any]) -> bytes:
    return json.dumps({"choices": [{"index": 0, "finish_reason": None, **choice}]}).encode()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    loop = asyncio.new_event_loop()
    listening = threading.Event()
    ended = asyncio.Event()

    async def run() -> None:
        async with await asyncio.start_server(fake.serve, "127.0.0.1", 0) as listener:
            fake.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            listening.set()
            await ended.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    def main() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=main)
    thread.start()
    listening.wait()
    yield fake
    loop.call_soon_threadsafe(ended.set)
    thread.join()
