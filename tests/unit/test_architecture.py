"""What ARCHITECTURE.md promises about the code, checked where import-linter cannot look."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import novacron

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "novacron"
MODULES = sorted(SOURCE.rglob("*.py"))
DISTRIBUTIONS = {
    "argon2": "argon2_cffi",
    "jwt": "pyjwt",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}  # where the names differ
ONLY_IN_TESTING = {"transformers", "gguf"}
HAND_THE_ENVIRONMENT_ON = {
    "cli/options.py",  # to config/load.py
    "cli/target.py",  # to config/load.py
    "bench/cli.py",  # to config/load.py, and to the servers it starts
    "bench/engine_hosts.py",  # its PATH, to the hosts it starts
    "engine/engine_process.py",  # to the engine process
    "cli/remote_engines.py",  # to the process that speaks to Ray, which reads much from it
    "cli/cluster/ray_node.py",  # to Ray
    "cluster/ray_platform.py",  # to hosts of engines
    "executor/tier_encryption.py",  # to encryption, for a master key, which no setting holds
    "cli/sealing.py",  # to encryption, likewise
    "executor/compilation.py",  # PyTorch reads CXX: whether there is such a compiler
    "testing/server_process.py",  # to the servers that tests start
}
IMPORT_WHERE_WANTED = {
    "executor/remote_tiers.py",  # libraries of extras
    "executor/tier_encryption.py",  # that of ciphers
}


def top_level_packages() -> set[str]:
    return {path.parent.name for path in SOURCE.glob("*/__init__.py")}


def layer_table() -> list[str]:
    """Names in the first column of the table below "## Layers"."""
    section = (ROOT / "ARCHITECTURE.md").read_text().split("## Layers")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([a-z_]+)`", row)]


def imports_of(module: Path) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import of a file, and whether it stands inside a function."""
    pending: list[tuple[ast.AST, bool]] = [(ast.parse(module.read_text()), False)]
    while pending:
        node, in_function = pending.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, in_function
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        pending += [(child, inside) for child in ast.iter_child_nodes(node)]


def test_the_table_names_every_package_once_and_no_other() -> None:
    named = layer_table()
    assert sorted(named) == sorted({*top_level_packages(), "errors"})


def test_the_layers_are_those_that_the_import_contract_enforces() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = pyproject["tool"]["importlinter"]["contracts"][0]
    enforced = [name for layer in contract["layers"] for name in re.split(r" [|:] ", layer)]
    ignored = [name for name in contract["exhaustive_ignores"] if name != "__main__"]
    assert layer_table() == enforced + ignored


def test_every_package_has_something_in_it() -> None:
    for package in top_level_packages():
        files = [path for path in (SOURCE / package).rglob("*.py") if path.name != "__init__.py"]
        assert files, f"{package} is empty"


def test_imports_stand_at_the_top_of_the_file() -> None:
    offenders = [
        f"{module.relative_to(SOURCE)}:{node.lineno}"
        for module in MODULES
        if module.relative_to(SOURCE).parts[0] != "cli"
        and module.relative_to(SOURCE).as_posix() not in IMPORT_WHERE_WANTED
        for node, in_function in imports_of(module)
        if in_function
    ]
    assert offenders == []


def test_settings_are_read_from_the_environment_in_one_place() -> None:
    """Commands hand os.environ to config/load.py; no component looks at it."""
    readers = {
        module.relative_to(SOURCE).as_posix()
        for module in MODULES
        if re.search(r"\bos\.(environ|getenv)\b", module.read_text())
    }
    assert readers <= HAND_THE_ENVIRONMENT_ON


def test_every_library_that_is_imported_is_declared() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    requirements = sum((extras[name] for name in extras if name != "dev"), project["dependencies"])
    declared = {
        re.split(r"[<>=\[;]", requirement)[0].lower().replace("-", "_")
        for requirement in requirements
    }
    imported: set[str] = set()
    for module in MODULES:
        for node, _ in imports_of(module):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            imported |= {str(name).partition(".")[0] for name in names}
    libraries = imported - set(sys.stdlib_module_names) - {"novacron"} - ONLY_IN_TESTING
    assert {DISTRIBUTIONS.get(name, name) for name in libraries} <= declared


@pytest.mark.parametrize(
    "module",
    ["novacron", "novacron.gateway.app", "novacron.engine.process_client", "novacron.cli.main"],
)
def test_the_api_process_runs_without_torch(module: str) -> None:
    """import-linter does not see what a parent's __init__ brings along; a fresh process does."""
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_the_public_names_are_these_and_can_be_had() -> None:
    assert novacron.__all__ == ["LLM", "RequestOutput", "SamplingParams", "__version__"]
    assert all(getattr(novacron, name) for name in novacron.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        novacron.Nothing  # noqa: B018


def test_the_version_is_the_one_of_the_package() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert novacron.__version__ == pyproject["project"]["version"]
