"""Write requirements.lock and requirements-dev.lock from what is installed in this environment.

    make lock

Pins every distribution that pyproject.toml leads to, on any Python we support. The first file holds
what running and building need, the second what `make test` and `make check` add. torch stands in
neither: which build of it is right depends on the machine, so tools/bootstrap.py chooses it. Nor
does pip, which an environment brings along.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
NOT_LOCKED = {"torch", "novacron", "pip"}
EDITABLE_INSTALL = ["editables"]  # hatchling asks for it while it installs in place
HEADER = "# Written by `make lock` from pyproject.toml. Holds for Python {pythons}.\n"


def pins(requirements: Iterable[str]) -> dict[str, str]:
    """Version of everything the requirements lead to, by normalised name."""
    found: dict[str, str] = {}
    for python in PYTHONS:
        pending = [Requirement(text) for text in requirements]
        seen: set[tuple[str, str]] = set()
        while pending:
            wanted = pending.pop()
            name = canonicalize_name(wanted.name)
            for extra in wanted.extras or {""}:
                if (name, extra) in seen:
                    continue
                seen.add((name, extra))
                installed = distribution(name)
                found[name] = installed.version
                pending += applicable(installed.requires or [], python, extra)
    return {name: found[name] for name in sorted(found) if name not in NOT_LOCKED}


def distribution(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        sys.exit(f"{name} is not installed here. Install it, then run `make lock` again.")


def applicable(requires: Iterable[str], python: str, extra: str) -> list[Requirement]:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "extra": extra,
    }
    parsed = [Requirement(text) for text in requires]
    return [one for one in parsed if one.marker is None or one.marker.evaluate(environment)]


def write(path: Path, versions: dict[str, str]) -> None:
    lines = [f"{name}=={version}\n" for name, version in versions.items()]
    path.write_text(HEADER.format(pythons=", ".join(PYTHONS)) + "".join(lines))
    print(f"{path.name}: {len(versions)} distributions")


def main() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    building = pyproject["build-system"]["requires"] + EDITABLE_INSTALL
    runtime = pins([*project["dependencies"], *building])
    everything = pins([*runtime, *project["optional-dependencies"]["dev"]])
    write(ROOT / "requirements.lock", runtime)
    write(
        ROOT / "requirements-dev.lock",
        {name: version for name, version in everything.items() if name not in runtime},
    )


if __name__ == "__main__":
    main()
