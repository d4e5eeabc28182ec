"""A server of the S3 protocol in a process of its own (moto), where that is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator

# Prints the port it was given, and serves until it is killed.
_SERVER = """
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
server._thread.join()
"""


def has_s3_server() -> bool:
    return importlib.util.find_spec("moto") is not None


@contextlib.contextmanager
def running_s3() -> Iterator[str]:
    """Its address. Any key opens it; what it holds goes with the context."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, "the S3 server ended at its start"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()
