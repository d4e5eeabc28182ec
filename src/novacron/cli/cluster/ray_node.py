"""A Ray node of this host, as a child in the foreground: what `cluster up` and `join` run.

`ray stop` would end every Ray process of the host, whoever started it; here those end that this
command has started, and no others.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from novacron.config.cluster import ENGINE_SLOT
from novacron.errors import ConfigError

PORT: Final = 9090
LISTEN_PORTS: Final = "9100-9199"  # of engines that Ray starts, the first free one

_TOKEN = Path("~/.config/novacron/ray.token")
_NODES = Path("~/.cache/novacron/cluster")  # a file for each node that runs, named by its process
_END_PATIENCE_S: Final = 15.0
_A_WHILE_S: Final = 20.0  # what does not start at all ends sooner
_AGAIN_S: Final = 2.0
_LOOK_S: Final = 0.5

# Ray takes a node for lost after a minute of silence; requests have gone on elsewhere by then, but
# its replica would be missing. And a head that is away must not end engines that run.
_PATIENCE: Final = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
}


def token_file() -> Path:
    return _TOKEN.expanduser()


def token_environment() -> dict[str, str]:
    """By which Ray knows members of our cluster; nothing where there is no token. Ray's own
    variables win."""
    file = token_file()
    if not file.exists() or "RAY_AUTH_MODE" in os.environ:
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}


def make_token() -> None:
    """Where there is none: a file that only its owner reads."""
    file = token_file()
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(secrets.token_hex(32))


def start_arguments(host: str, engines: int, object_store_bytes: int) -> list[str]:
    """Of `ray start`, for any node."""
    return [
        "--block",
        "--disable-usage-stats",
        f"--node-ip-address={host}",
        f"--resources={json.dumps({ENGINE_SLOT: engines})}",
        f"--object-store-memory={object_store_bytes}",  # which nothing of ours is put into
    ]


def run_node(
    arguments: list[str], environment: Mapping[str, str] = os.environ, *, comes_back: bool
) -> int:
    """Run `ray start` with these until it or this process is told to end. The exit code.

    A node that was cut off from its cluster ends by itself when it hears of it again, for the
    others count it as dead. With `comes_back` a node that has run for a while is started anew.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("Ray is not installed here: pip install 'novacron[ray]'")
    record = _NODES.expanduser() / str(os.getpid())
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(repr(psutil.Process().create_time()))
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    # Not the script `ray`: it names an interpreter, which is another one once an environment moves.
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments]
    has_run = False
    try:
        while True:
            begun_s = time.monotonic()
            exit_code = _run_once(
                command, {**_PATIENCE, **environment, **token_environment()}, asked
            )
            has_run |= time.monotonic() - begun_s > _A_WHILE_S
            if asked.is_set():
                return 0
            if not (comes_back and has_run):
                return exit_code
            print(f"The node has ended (exit code {exit_code}); joining again.", flush=True)
            asked.wait(_AGAIN_S)
    finally:
        record.unlink(missing_ok=True)


def _run_once(command: list[str], environment: dict[str, str], asked: threading.Event) -> int:
    node = subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,  # a terminal's Ctrl-C comes to us, who end it in order
    )
    try:
        while node.poll() is None and not asked.wait(_LOOK_S):
            pass
    finally:
        _end_tree(node)
    return node.returncode


def running_nodes() -> list[psutil.Process]:
    """Those of this user that `run_node` keeps."""
    found = []
    for record in _NODES.expanduser().glob("*"):
        try:
            process = psutil.Process(int(record.name))
            is_it = repr(process.create_time()) == record.read_text()
        except (psutil.NoSuchProcess, ValueError, OSError):
            is_it = False
        if is_it:
            found.append(process)
        else:
            record.unlink(missing_ok=True)
    return found


def _end_tree(node: subprocess.Popen[bytes]) -> None:
    """Ray's processes die with the node's, most of the time; what is left is killed."""
    try:
        tree = psutil.Process(node.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        tree = []
    node.terminate()
    try:
        node.wait(_END_PATIENCE_S)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()
    _, alive = psutil.wait_procs(tree, timeout=3)
    for process in alive:
        process.kill()
