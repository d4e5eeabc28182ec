"""How much the bench's own client can take: a stand-in server that streams as fast as it can.

    python benchmarks/client_capacity.py

The server runs in a process of its own and sends ready-made events, each in a segment of its own
where the kernel lets it; the client is the one of `novacron bench`. What matters is the client's
processor time per event: its inverse is what one core can take.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection

import uvloop

from novacron.bench.http_client import HttpClient
from novacron.bench.transcript import read_transcript

STREAMS = 32
EVENTS = 400
ROUNDS = 5
PAUSE_S = 0.001  # between the tokens of a stream, so that events do not merge

_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = (
    b'data: {"id":"cmpl-0123456789abcdef0123456789abcdef","object":"text_completion",'
    b'"created":1700000000,"model":"m","choices":[{"index":0,"text":" word","logprobs":null,'
    b'"finish_reason":null}]}\n\n'
)
_CHUNK = b"%x\r\n" % len(_EVENT) + _EVENT + b"\r\n"


async def _stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(_HEAD)
            for _ in range(EVENTS):
                writer.write(_CHUNK)
                await asyncio.sleep(PAUSE_S)
            writer.write(b"0\r\n\r\n")
    except asyncio.IncompleteReadError:
        writer.close()


def _serve(port: Connection) -> None:
    async def run() -> None:
        async with await asyncio.start_server(_stream, "127.0.0.1", 0) as server:
            port.send(server.sockets[0].getsockname()[1])
            await asyncio.Event().wait()

    uvloop.run(run())


async def _measure(url: str) -> None:
    client = HttpClient(url)
    await client.open_connections(STREAMS)
    for _ in range(ROUNDS):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        exchanges = await asyncio.gather(*(client.get("/") for _ in range(STREAMS)))
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        segments = sum(len(exchange.chunks) for exchange in exchanges)
        tokens = sum(read_transcript(exchange).num_output_tokens for exchange in exchanges)
        print(
            f"{tokens} tokens in {segments} segments: {tokens / wall_s:,.0f} tok/s offered, "
            f"{cpu_s / tokens * 1e6:.1f} us of the client's core per token, "
            f"one core takes {tokens / cpu_s:,.0f} tok/s"
        )
    client.close()


def main() -> None:
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    uvloop.run(_measure(f"http://127.0.0.1:{ours.recv()}"))
    server.terminate()


if __name__ == "__main__":
    main()
