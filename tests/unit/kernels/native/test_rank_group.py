"""Processes that meet: in order under any delays, and never for ever."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.kernels.native.group_member import memory_bytes

from novacron.kernels.native.library import PATH, NativeUnavailable, native_levels

SCRIPT = Path(__file__).with_name("group_member.py")
ENDED, LATE, GIVEN_UP = "1", "2", "3"

try:
    native_levels()
except NativeUnavailable:
    pytest.skip("no native kernels", allow_module_level=True)


@contextlib.contextmanager
def members(
    size: int, rounds: int, patience_s: float, busy_s: float = 0.0
) -> Iterator[list[subprocess.Popen[str]]]:
    """As many processes, all of which have joined. The last one is busy for a while."""
    descriptor = os.memfd_create("novacron-test")
    os.ftruncate(descriptor, memory_bytes(size))
    fixed = [str(PATH), str(descriptor)]
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, SCRIPT, *fixed, *map(str, (rank, size, rounds, patience_s))),
                *([str(busy_s)] if rank == size - 1 else []),
            ],
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(descriptor,),
        )
        for rank in range(size)
    ]
    os.close(descriptor)
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "joined\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def answer_of(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


@pytest.mark.parametrize("size", [2, 4])
def test_sums_are_right_whatever_the_sizes_and_delays(size: int) -> None:
    with members(size, 3000, patience_s=60) as processes:
        assert [answer_of(process) for process in processes] == [["right"]] * size


ENDLESS = 10**9


def test_who_waits_for_a_process_that_was_killed_hears_of_it() -> None:
    with members(4, ENDLESS, patience_s=600) as processes:
        processes[1].kill()
        answers = [answer_of(processes[rank]) for rank in (0, 2, 3)]
    assert ["lost", ENDED, "1"] in answers
    assert all(answer[:2] in (["lost", ENDED], ["lost", GIVEN_UP]) for answer in answers)


def test_who_waits_for_a_process_that_is_stopped_loses_patience() -> None:
    with members(2, ENDLESS, patience_s=0.3) as processes:
        processes[1].send_signal(signal.SIGSTOP)
        assert answer_of(processes[0]) == ["lost", LATE, "1"]
        processes[1].send_signal(signal.SIGCONT)
        assert answer_of(processes[1])[0] == "lost"


def test_who_is_late_because_it_computes_is_waited_for() -> None:
    """On a machine that is too busy a rank may get no core for longer than patience lasts."""
    with members(2, 10, patience_s=0.3, busy_s=0.9) as processes:
        assert [answer_of(process) for process in processes] == [["right"]] * 2
