"""novacron version."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import click

_PACKAGES = ("novacron", "torch", "tokenizers", "safetensors", "llguidance", "fastapi", "uvicorn")


@click.command()
def version() -> None:
    """Show the versions of NovaCron and of what it stands on."""
    for package in _PACKAGES:
        click.echo(f"{package:12} {_installed(package)}")
    click.echo(f"{'python':12} {platform.python_version()} ({platform.machine()})")


def _installed(package: str) -> str:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return "not installed"
