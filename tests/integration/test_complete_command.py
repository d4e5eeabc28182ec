"""`novacron complete` in a pipe, with a server of its own that ends with it."""

from __future__ import annotations

import subprocess
import sys

_PATIENCE_S = 120.0


def test_a_background_server_answers_a_pipe() -> None:
    command = [
        sys.executable,
        "-m",
        "novacron.cli.main",
        "complete",
        "--model",
        "",
        "--num-threads",
        "1",
    ]
    result = subprocess.run(
        [*command, "--max-tokens", "3", "--stats"],
        input="One",
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
    )
    assert result.returncode == 0, result.stderr
    assert "3 generated" in result.stderr
