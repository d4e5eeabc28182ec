"""The group: quick, lazy, and with exit codes that tell the truth."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import click
import pytest

from novacron import errors
from novacron.cli import main

HEAVY = ("torch", "fastapi", "uvicorn", "zmq", "tokenizers", "httpx2", "rich", "psutil", "yaml")


def _loaded(*args: str) -> list[str]:
    program = (
        "import sys; from novacron.cli.main import cli\n"
        "try: cli(sys.argv[1:], standalone_mode=False)\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, *args]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded: list[str] = ast.literal_eval(result.stdout.splitlines()[-1])
    return loaded


def test_help_loads_nothing_heavy() -> None:
    assert _loaded("--help") == []


def test_commands_load_only_what_they_need() -> None:
    assert "torch" not in _loaded("serve", "--help")
    assert set(_loaded("serve", "--help")) <= {"yaml"}
    assert _loaded("version") == []


def test_help_lists_every_command(novacron) -> None:
    result = novacron("--help")
    assert result.exit_code == 0
    for name in ("serve", "chat", "complete", "run-batch", "bench", "doctor", "validate"):
        assert name in result.output


@pytest.mark.parametrize("name", sorted(main._COMMANDS))
def test_every_command_is_there(name: str) -> None:
    module, _, attribute = main._COMMANDS[name].target.partition(":")
    assert isinstance(getattr(import_module(module), attribute), click.Command)


def test_unknown_command(novacron) -> None:
    result = novacron("sevre")
    assert result.exit_code == 2
    assert "No such command 'sevre'" in result.output


@pytest.mark.parametrize(
    ("error", "exit_code", "shown"),
    [
        (errors.ConfigError("port is 0"), 2, "Error: port is 0\n"),
        (errors.ModelLoadError("no file"), 1, "Error: no file\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_a_line_and_a_code(monkeypatch, novacron, error, exit_code, shown) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("novacron.cli.version.version.callback", fail)
    result = novacron("version")
    assert result.exit_code == exit_code
    assert result.output == shown


def test_version_names_ours_first(novacron) -> None:
    assert novacron("version").output.startswith("novacron ")
    assert version("novacron") in novacron("--version").output


def test_the_package_is_the_command() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "novacron", "--version"], capture_output=True, text=True, check=True
    )
    assert version("novacron") in told.stdout
