"""What HTTP costs per token: the gateway over an engine that recites, measured from outside.

    python benchmarks/gateway_cost.py [--streams 32] [--tokens 500] [--step-ms 4] [--path /v1/...]

Prints chunks per second of the server's CPU time, and microseconds of it per chunk. The client is
a plain socket reader in this process, so that it does not compete for the server's core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import uvicorn

from novacron.config.server import ServerConfig
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import FakeEngineClient, fake_tokenizer

TEXT = "The capital of France is Paris. "


def serve(step_s: float, ready: Connection) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        engine = FakeEngineClient(
            fake_tokenizer(Path(folder)), reply=lambda request: TEXT, step_s=step_s
        )
        app = build_app(engine, ServerConfig(), model_names=("fake",))
        ready.send(listener.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        server.run(sockets=[listener])


async def read_stream(port: int, path: str, num_tokens: int) -> int:
    """Start a stream, read it to the end, return its number of chunks."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    question = {"messages": [{"role": "user", "content": "hi"}]}
    body = {
        **(question if "chat" in path else {"prompt": "hi"}),
        "stream": True,
        "max_tokens": num_tokens,
        "ignore_eos": True,
    }
    content = json.dumps(body).encode()
    writer.write(
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (path.encode(), len(content), content)
    )
    num_chunks = 0
    while piece := await reader.read(65536):
        num_chunks += piece.count(b"data: ")
    writer.close()
    return num_chunks


async def measure(port: int, server: psutil.Process, arguments: argparse.Namespace) -> None:
    async def read_one() -> int:
        return await read_stream(port, arguments.path, arguments.tokens)

    await read_one()  # warm-up
    loop = asyncio.get_running_loop()
    start_s, before = loop.time(), server.cpu_times()
    num_chunks = sum(await asyncio.gather(*(read_one() for _ in range(arguments.streams))))
    wall_s, after = loop.time() - start_s, server.cpu_times()
    cpu_s = after.user + after.system - before.user - before.system
    print(
        f"{arguments.path}: {num_chunks} chunks of {arguments.streams} streams in {wall_s:.2f} s, "
        f"{cpu_s:.2f} s of CPU: {num_chunks / cpu_s:.0f} chunks per CPU second, "
        f"{cpu_s / num_chunks * 1e6:.1f} us each"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--step-ms", type=float, default=4.0)
    parser.add_argument("--path", default="/v1/chat/completions")
    arguments = parser.parse_args()
    ready, ready_sender = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=serve, args=(arguments.step_ms / 1000, ready_sender))
    server.start()
    try:
        asyncio.run(measure(ready.recv(), psutil.Process(server.pid), arguments))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
