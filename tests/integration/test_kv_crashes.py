"""The disk tier's folder after kill -9 at any moment, after power cuts, and with a neighbour."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = 2**18  # so that segments come and go
LARGE = 2**24  # so that nothing has to go

FEW, MANY = 20, 1000


def run(folder: Path, cycles: int, *arguments: str, limit: int = SMALL) -> dict[str, int]:
    """What the cycles saw. Raises AssertionError with what was wrong."""
    command = [sys.executable, "-m", "novacron.bench.killed_writers", str(folder)]
    settings = ["--cycles", str(cycles), "--seed", "7", "--limit", str(limit)]
    result = subprocess.run(
        [*command, *settings, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    seen: dict[str, int] = json.loads(result.stdout)
    assert seen["cycles"] == cycles
    assert seen["stored"] > cycles, "they hardly came to store anything"
    assert seen["found"] > 0
    assert (seen["wrong"], seen["torn"], seen["over_limit"]) == (0, 0, 0)
    return seen


cycles = pytest.mark.parametrize(
    "cycles", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=str
)


@cycles
def test_killed_at_any_moment_all_that_is_found_is_right(tmp_path: Path, cycles: int) -> None:
    seen = run(tmp_path, cycles)
    assert seen["unsound"] == 0


@pytest.mark.parametrize("cycles", [FEW, pytest.param(200, marks=pytest.mark.slow)], ids=str)
def test_killed_at_any_moment_nothing_is_lost_that_was_stored(tmp_path: Path, cycles: int) -> None:
    """But for what had to make room: here nothing has to."""
    seen = run(tmp_path, cycles, limit=LARGE)
    assert (seen["lost"], seen["unsound"]) == (0, 0)


@cycles
def test_after_power_cuts_no_block_is_wrong(tmp_path: Path, cycles: int) -> None:
    """They leave damage, which is refused, and the folder is used further."""
    seen = run(tmp_path, cycles, "--power-cuts")
    assert seen["power_cuts"] > cycles // 10
    assert seen["unsound"] > 0 or cycles < MANY


@pytest.mark.parametrize("cycles", [FEW, pytest.param(300, marks=pytest.mark.slow)], ids=str)
def test_a_neighbour_that_lives_on_sees_nothing_wrong(tmp_path: Path, cycles: int) -> None:
    run(tmp_path, cycles, "--neighbour", limit=2 * SMALL)
