"""`novacron rank` on "another host", and a server with the first stage, or slice: the tokens of one
engine, though the rank is killed, frozen or cut off while it computes. The server's engine
stays."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.integration.test_engine_hosts import texts_while
from tests.integration.test_replicas import of_one_engine

from novacron.bench.faulty_link import FaultyLink
from novacron.engine.link.keys import KeyPair, write_key
from novacron.testing.rank_hosts import LEADER, RankHost
from novacron.testing.server_process import ServerProcess, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rank() -> Iterator[RankHost]:
    with RankHost() as host:
        yield host


def pid_of(rank: RankHost) -> int:
    return rank.supervisor.pid


def num_crashes(server: ServerProcess) -> int:
    return server.log().count("before this one has crashed")


@pytest.mark.parametrize("parallel", ["-pp 2", "-tp 2", "-pp 2 -tp 2"])
def test_a_lost_host_changes_no_answer(tmp_path: Path, rank: RankHost, parallel: str) -> None:
    expected = of_one_engine()
    num_ranks = prod(map(int, parallel.split()[1::2]))
    key = tmp_path / "server.key"
    write_key(key, LEADER)
    public, _, place = rank.address.partition("@")
    with (
        FaultyLink(int(place.rpartition(":")[2])) as network,
        ServerProcess(
            *parallel.split(), "--rank-hosts", f"{public}@127.0.0.1:{network.port}",
            "--link-key", str(key), "--dtype", "float32", "--num-threads", "1",
            "--link-timeout", "1s", log_file=tmp_path / "log",
        ) as server,
    ):  # fmt: skip
        server.wait_ready()

        def kill() -> None:
            os.kill(pid_of(rank), signal.SIGKILL)

        def freeze() -> None:
            os.kill(pid_of(rank), signal.SIGSTOP)

        def fall_silent() -> None:
            network.is_silent = True

        def workers() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = server.get("/api/v1/llm/cluster/status").json()["workers"]
            return found

        def is_whole() -> bool:
            return [one["status"] for one in workers()] == ["active"] * num_ranks

        engine = workers()[0]["pid"]
        assert asyncio.run(texts_while(server.url, lambda: None)) == expected
        for fault in (kill, network.cut, freeze):
            before = pid_of(rank)
            assert asyncio.run(texts_while(server.url, fault)) == expected, fault
            # The streams may have come to their end before anybody has noticed.
            wait_until(lambda: pid_of(rank) != before)  # noqa: B023 - each group has one of its own
            wait_until(lambda: num_crashes(server) > 0 and is_whole())
            assert num_crashes(server) == 1, fault  # the first fault, and no other
            assert workers()[0]["pid"] == engine, fault

        async def silence() -> list[str]:
            found = asyncio.create_task(texts_while(server.url, fall_silent))
            old = psutil.Process(pid_of(rank))
            while old.is_running():  # noqa: ASYNC110 - until it has noticed by itself
                await asyncio.sleep(0.05)
            network.is_silent = False
            return await found

        assert asyncio.run(silence()) == expected
        wait_until(is_whole)
        assert workers()[0]["pid"] == engine
        assert server.log().count("All hosts compute again") >= 4
        metrics = server.get("/metrics").text
        assert re.search(r"^novacron_engine_restarts_total\S* 0", metrics, re.MULTILINE)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    wait_until(lambda: psutil.pid_exists(pid_of(rank)))


def slices_of(pid: int) -> list[psutil.Process]:
    """The processes of the other slices of the stage whose first rank this is."""
    children = psutil.Process(pid).children()
    return [one for one in children if "novacron.executor.rank_process" in one.cmdline()]


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_slice_on_another_host_is_replaced_there(
    tmp_path: Path, rank: RankHost, fault: signal.Signals
) -> None:
    expected = of_one_engine()
    key = tmp_path / "server.key"
    write_key(key, LEADER)
    with ServerProcess(
        "-pp", "2", "-tp", "2", "--rank-hosts", rank.address, "--link-key", str(key),
        "--dtype", "float32", "--num-threads", "1", "--link-timeout", "30s",
        log_file=tmp_path / "log",
    ) as server:  # fmt: skip
        server.wait_ready()
        first = pid_of(rank)
        [lost] = slices_of(first)
        assert asyncio.run(texts_while(server.url, lambda: lost.send_signal(fault))) == expected
        wait_until(lambda: not lost.is_running())
        assert asyncio.run(texts_while(server.url, lambda: None)) == expected
        assert pid_of(rank) == first  # its stage has kept its weights
        [another] = slices_of(first)
        assert another != lost
        assert server.metric("novacron_engine_restarts_total") == 0
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    wait_until(lambda: not another.is_running())


def test_a_lost_host_pauses_its_replica_alone(tmp_path: Path, rank: RankHost) -> None:
    expected = of_one_engine()
    key = tmp_path / "server.key"
    write_key(key, LEADER)
    with (
        RankHost() as other,
        ServerProcess(
            "-pp", "2", "-dp", "2", "--rank-hosts", f"{rank.address},{other.address}",
            "--link-key", str(key), "--dtype", "float32", "--num-threads", "2",
            "--link-timeout", "30s",
            log_file=tmp_path / "log",
        ) as server,
    ):  # fmt: skip
        server.wait_ready()

        def is_whole() -> bool:
            found = server.get("/api/v1/llm/cluster/status").json()
            states = [replica["state"] for replica in found["replicas"]]
            workers = [worker["status"] for worker in found["workers"]]
            return states == ["ready"] * 2 and workers == ["active"] * 4

        wait_until(is_whole)
        survivor, lost = pid_of(rank), pid_of(other)

        def kill() -> None:
            os.kill(lost, signal.SIGKILL)

        assert asyncio.run(texts_while(server.url, kill)) == expected
        wait_until(lambda: pid_of(other) != lost and is_whole())
        assert pid_of(rank) == survivor
        assert server.metric("novacron_engine_restarts_total") == 0  # of neither replica
        assert "others go on with its requests" in server.log()
        assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 2}).status_code == 200


def test_a_key_that_is_not_allowed_ends_the_server(tmp_path: Path, rank: RankHost) -> None:
    key = tmp_path / "stranger.key"
    write_key(key, KeyPair.make())
    with ServerProcess(
        "-pp", "2", "--rank-hosts", rank.address, "--link-key", str(key), log_file=tmp_path / "log"
    ) as server:
        assert server.wait_exit() == 1
    assert "does not allow our key" in server.log()
