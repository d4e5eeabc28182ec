"""A disk tier on a file system that is full: nothing is wrong, and it recovers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from novacron.kv_tiers.disk_tier import DiskTier
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, held, make_record, put

LIMIT = 2 * 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def put_until_full(tier: DiskTier) -> int:
    """The number of records that fit: the next one takes the place of an older one."""
    for number in range(100_000):
        done = tier.put([make_record(number)])
        assert done.stored
        if done.dropped:
            return number
    raise AssertionError("there is no end to the disk")


def test_on_a_full_file_system_new_blocks_take_the_places_of_old_ones(small_disk: Path) -> None:
    tier = DiskTier(small_disk, LIMIT, RECORD_BYTES, IDENTITY)
    fit = put_until_full(tier)
    assert fit > 100
    end = fit + 201
    for number in range(fit + 1, end):
        put(tier, number)
    kept = list(range(end - fit, end))
    assert held(tier, range(end)) == kept
    tier.close()
    again = DiskTier(small_disk, LIMIT, RECORD_BYTES, IDENTITY)
    assert held(again, range(end)) == kept
    put(again, end)  # by a process that does not know yet that there is no room
    assert len(held(again, range(end + 1))) == fit
    assert held(again, [end]) == [end]


def test_when_there_is_room_again_it_goes_on(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2**19))
    seconds = [0.0]
    tier = DiskTier(small_disk, LIMIT, RECORD_BYTES, IDENTITY, clock=lambda: seconds[0])
    fit = put_until_full(tier)
    ballast.unlink()
    seconds[0] += 60
    put(tier, fit + 1, fit + 2)
    assert len(held(tier, range(fit + 3))) == fit + 2


WRITER = """
import json, resource, signal, sys
from pathlib import Path
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, held, make_record

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
tier = DiskTier(Path(sys.argv[1]), 8 * 2**20, RECORD_BYTES, IDENTITY)
errors = 0
for number in range(50):
    try:
        tier.put([make_record(number)])
    except OSError:
        errors += 1
print(json.dumps({"errors": errors, "held": len(held(tier, range(50)))}))
"""


def test_files_that_may_not_grow_are_an_os_error_and_leave_nothing(tmp_path: Path) -> None:
    """A segment is as large as it will be from the beginning."""
    result = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert json.loads(result.stdout) == {"errors": 50, "held": 0}
    assert not list(tmp_path.glob("*.tmp"))
    assert not list(tmp_path.glob("*.kvseg"))
