"""A Ray cluster of several nodes on this machine, each in a network of its own where that may be:
novacron cluster up and join, novacron serve --executor ray, and what ends under its streams.

Slow, and heavy: `make test-ray`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest
from tests.integration.test_replicas import NUM_STREAMS, STATUS, of_one_engine, streamed

from novacron.testing.server_process import PATIENCE_S, ServerProcess, wait_until

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

NOVACRON = (sys.executable, "-c", "from novacron.cli.main import main; main()")
NUM_NODES = 3
ENGINE, HOST, RAYLET = "novacron.engine", "--end-with-stdin", "raylet"
BRIDGE = f"nv{os.getpid() % 10000}"
SUBNET = "10.213.47"


def ip(*arguments: str) -> bool:
    done = subprocess.run(["ip", *arguments], capture_output=True, check=False)
    return done.returncode == 0


@contextmanager
def networks() -> Iterator[bool]:
    """A network for each node, with a bridge to ours. False if this machine does not let us."""
    is_there = shutil.which("ip") is not None and ip("link", "add", BRIDGE, "type", "bridge")
    try:
        if is_there:
            ip("addr", "add", f"{SUBNET}.1/24", "dev", BRIDGE)
            ip("link", "set", BRIDGE, "up")
        for number in range(NUM_NODES * is_there):
            space, ours = f"{BRIDGE}n{number}", f"{BRIDGE}v{number}"
            is_there &= ip("netns", "add", space)
            is_there &= ip("link", "add", ours, "type", "veth", "peer", "eth0", "netns", space)
            ip("link", "set", ours, "master", BRIDGE, "up")
            inside = ("-n", space)
            ip(*inside, "addr", "add", f"{SUBNET}.{10 + number}/24", "dev", "eth0")
            ip(*inside, "link", "set", "eth0", "up")
            ip(*inside, "link", "set", "lo", "up")
            ip(*inside, "route", "add", "default", "via", f"{SUBNET}.1")
        yield is_there
    finally:
        for number in range(NUM_NODES):
            ip("netns", "del", f"{BRIDGE}n{number}")
        ip("link", "del", BRIDGE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


class Node:
    """`novacron cluster up` or `join`, and all that it has started."""

    def __init__(self, log: Path, home: Path, *arguments: str, space: str = "") -> None:
        self.log, self.space = log, space
        prefix = ("ip", "netns", "exec", space) if space else ()
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*prefix, *NOVACRON, "cluster", *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HOME": str(home)},
            )

    def wait_started(self) -> None:
        wait_until(lambda: "block forever" in self.log.read_text() or self.process.poll())
        assert self.process.poll() is None, self.log.read_text()

    def wait_joined_again(self) -> None:
        wait_until(lambda: self.log.read_text().count("block forever") > 1)

    def find(self, what: str) -> list[psutil.Process]:
        """Processes of the node that have this in their command line."""
        found: list[psutil.Process] = []
        if self.process.poll() is not None:
            return found
        for one in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if any(what == part or part.endswith(f"/{what}") for part in one.cmdline()):
                    found.append(one)
            except psutil.NoSuchProcess:
                continue
        return found

    @property
    def has_engine(self) -> bool:
        return bool(self.find(ENGINE))

    def power_off(self) -> None:
        """All of its processes at once, as when a host loses power."""
        tree = [psutil.Process(self.process.pid)]
        tree += tree[0].children(recursive=True)
        for one in tree:
            with_suppressed(one.suspend)
        for one in tree:
            with_suppressed(one.kill)
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE_S)


def with_suppressed(act: Callable[[], object]) -> None:
    try:
        act()
    except psutil.NoSuchProcess:
        return


class Cluster:
    def __init__(self, folder: Path, *, is_apart: bool) -> None:
        self.is_apart = is_apart
        self.folder = folder
        port = free_port()
        host = f"{SUBNET}.1" if is_apart else "127.0.0.1"
        self.address = f"{host}:{port}"
        up = ("up", "--host", host, "--port", str(port), "--engines", "0", "--num-cpus", "1")
        self.head = Node(folder / "up.log", folder, *up)
        self.nodes: list[Node] = []

    def start(self) -> None:
        """One after the other: those of one machine take names of sockets from each other."""
        self.head.wait_started()
        for number in range(NUM_NODES):
            self.nodes.append(self.join(number))
            self.nodes[-1].wait_started()

    def join(self, number: int) -> Node:
        host = f"{SUBNET}.{10 + number}" if self.is_apart else "127.0.0.1"
        arguments = ("join", self.address, "--host", host, "--num-cpus", "1")
        space = f"{BRIDGE}n{number}" if self.is_apart else ""
        return Node(self.folder / f"join{number}.log", self.folder, *arguments, space=space)

    def with_engines(self) -> list[Node]:
        return [node for node in self.nodes if node.has_engine]

    def unplug(self, node: Node, *, plug: bool = False) -> None:
        link = f"{BRIDGE}v{self.nodes.index(node)}"
        assert ip("link", "set", link, "up" if plug else "down")

    def end(self) -> None:
        for node in (*self.nodes, self.head):
            node.end()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with networks() as are_there:
        cluster = Cluster(tmp_path_factory.mktemp("ray"), is_apart=are_there)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.end()


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[ServerProcess]:
    with ServerProcess(
        "--executor", "ray", "--ray-address", cluster.address, "-dp", "2", "--dtype", "float32",
        "--num-threads", "1", "--kv-ram-size", "0", "--kv-cache-memory", "256Mi",
        "--link-timeout", "2s", log_file=cluster.folder / "serve.log",
        environment={"HOME": str(cluster.folder)},
    ) as server:  # fmt: skip
        server.wait_ready()
        wait_until(lambda: num_ready(server) == 2)
        yield server


@pytest.fixture(scope="module")
def expected() -> list[str]:
    return of_one_engine()


def num_ready(server: ServerProcess) -> int:
    return int(server.metric("novacron_replica_state", state="ready"))


async def texts_while(server: ServerProcess, fault: Callable[[], None]) -> list[str]:
    """Of all streams; `fault` happens once all have begun. Prints how long they took from then."""
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        begun = [asyncio.Event() for _ in range(NUM_STREAMS)]
        streams = [
            asyncio.create_task(streamed(http, number, begun[number]))
            for number in range(NUM_STREAMS)
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        await asyncio.to_thread(fault)
        since_s = time.monotonic()
        texts = await asyncio.gather(*streams)
        print(f"streams ended {time.monotonic() - since_s:.1f} s later;", end=" ")
        return texts


def check(server: ServerProcess, expected: list[str], name: str, fault: Callable[[], None]) -> None:
    """Streams that run through `fault` are what they would be, and both replicas come back."""
    pauses = server.metric("novacron_recovery_pause_seconds_count")
    paused_s = server.metric("novacron_recovery_pause_seconds_sum")
    restarts = server.get(STATUS).json()["cluster"]["num_restarts"]
    texts, since_s = asyncio.run(texts_while(server, fault)), time.monotonic()
    assert texts == expected
    num = server.metric("novacron_recovery_pause_seconds_count") - pauses
    mean_s = (server.metric("novacron_recovery_pause_seconds_sum") - paused_s) / max(num, 1)

    def is_whole() -> bool:
        status = server.get(STATUS).json()
        return num_ready(server) == 2 and status["cluster"]["num_restarts"] > restarts

    wait_until(is_whole)
    back_s = time.monotonic() - since_s
    print(f"{name}: {num:.0f} streams moved, paused {mean_s:.2f} s, replica back {back_s:.1f} s")


def test_replicas_stand_on_nodes_of_their_own(cluster: Cluster, server: ServerProcess) -> None:
    assert len(cluster.with_engines()) == 2
    assert not cluster.head.find(ENGINE)


@pytest.mark.parametrize("what", [ENGINE, HOST], ids=["engine", "host"])
def test_a_process_is_killed(
    cluster: Cluster, server: ServerProcess, expected: list[str], what: str
) -> None:
    [victim] = cluster.with_engines()[0].find(what)
    check(server, expected, f"SIGKILL of {what}", victim.kill)


def test_a_host_is_frozen(cluster: Cluster, server: ServerProcess, expected: list[str]) -> None:
    """It says nothing, and its connections stand: only silence tells."""
    [victim] = cluster.with_engines()[0].find(HOST)
    check(server, expected, "SIGSTOP of the host's process", victim.suspend)


def test_a_link_is_slow(cluster: Cluster, server: ServerProcess, expected: list[str]) -> None:
    if not cluster.is_apart:
        pytest.skip("needs networks of their own for nodes: root, and ip netns")
    node = cluster.with_engines()[0]
    link = ["dev", f"{BRIDGE}v{cluster.nodes.index(node)}", "root"]
    if subprocess.run(
        ["tc", "qdisc", "add", *link, "netem", "delay", "100ms"], check=False
    ).returncode:
        pytest.skip("the kernel has no netem")
    assert asyncio.run(texts_while(server, lambda: None)) == expected
    subprocess.run(["tc", "qdisc", "del", *link], check=True)
    assert num_ready(server) == 2


def test_a_node_is_cut_off_and_comes_back(
    cluster: Cluster, server: ServerProcess, expected: list[str]
) -> None:
    """Both sides go on living: Ray starts the replica elsewhere, and the old one ends itself."""
    if not cluster.is_apart:
        pytest.skip("needs networks of their own for nodes: root, and ip netns")
    node = cluster.with_engines()[0]
    [engine] = node.find(ENGINE)
    check(server, expected, "partition", lambda: cluster.unplug(node))
    wait_until(lambda: not engine.is_running())  # its host has noticed by itself
    cluster.unplug(node, plug=True)
    node.wait_joined_again()
    assert asyncio.run(texts_while(server, lambda: None)) == expected


def test_a_node_loses_power(cluster: Cluster, server: ServerProcess, expected: list[str]) -> None:
    node = cluster.with_engines()[0]
    number = cluster.nodes.index(node)
    check(server, expected, "SIGKILL of all processes of a node", node.power_off)
    again = cluster.nodes[number] = cluster.join(number)
    again.wait_started()


def test_nothing_is_left_behind(cluster: Cluster, server: ServerProcess) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    wait_until(lambda: not any(node.find(HOST) for node in cluster.nodes))
