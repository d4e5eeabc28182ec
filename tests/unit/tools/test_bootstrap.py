from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def bootstrap(tmp_path: Path) -> ModuleType:
    """tools/bootstrap.py of a checkout in a folder of its own, with nothing set up."""
    (tmp_path / "tools").mkdir()
    for name in ("pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path)
    copy = shutil.copy(ROOT / "tools" / "bootstrap.py", tmp_path / "tools")
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pretend_done(bootstrap: ModuleType, *, with_dev: bool) -> None:
    bootstrap.VENV_PYTHON.parent.mkdir(parents=True)
    bootstrap.VENV_PYTHON.symlink_to(sys.executable)
    bootstrap.write_stamp("cpu", with_dev)


@pytest.mark.parametrize(
    ("environment", "system", "gpu", "expected"),
    [
        ({}, "Linux", False, "cpu"),
        ({}, "Linux", True, "cuda"),
        ({}, "Darwin", False, "plain"),
        ({"NOVACRON_TORCH": " "}, "Linux", False, "cpu"),
        ({"NOVACRON_TORCH": "cuda"}, "Linux", False, "cuda"),
        ({"NOVACRON_TORCH": "/wheels/torch.whl"}, "Linux", True, "/wheels/torch.whl"),
    ],
)
def test_which_torch(
    bootstrap: ModuleType, environment: dict[str, str], system: str, gpu: bool, expected: str
) -> None:
    assert bootstrap.choose_torch(environment, system, gpu) == expected


def test_without_a_gpu_nothing_is_tried_that_could_bring_cuda(bootstrap: ModuleType) -> None:
    attempts = [arguments for _, arguments in bootstrap.torch_attempts("cpu")]
    assert len(attempts) == 2
    for arguments in attempts:
        assert f"torch=={bootstrap.TORCH_VERSION}+cpu" in arguments
        assert "--no-deps" in arguments
    assert bootstrap.CPU_INDEX not in attempts[0]
    assert bootstrap.CPU_INDEX in attempts[1]


def test_an_order_of_the_user_is_passed_to_pip(bootstrap: ModuleType) -> None:
    ((_, arguments),) = bootstrap.torch_attempts("torch==2.12 --index-url https://x.example")
    assert arguments == ["torch==2.12", "--index-url", "https://x.example"]


def test_a_finished_setup_is_recognised(bootstrap: ModuleType) -> None:
    assert not bootstrap.is_done("cpu", False)
    pretend_done(bootstrap, with_dev=True)
    assert bootstrap.is_done("cpu", True)
    assert bootstrap.is_done("cpu", False)


def test_a_setup_for_running_only_is_not_enough_for_tests(bootstrap: ModuleType) -> None:
    pretend_done(bootstrap, with_dev=False)
    assert bootstrap.is_done("cpu", False)
    assert not bootstrap.is_done("cpu", True)


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock", "requirements-dev.lock"])
def test_a_changed_file_asks_for_a_new_setup(bootstrap: ModuleType, name: str) -> None:
    pretend_done(bootstrap, with_dev=True)
    with open(bootstrap.ROOT / name, "a") as file:
        file.write("\n")
    assert not bootstrap.is_done("cpu", False)


def test_a_gpu_that_appears_asks_for_a_new_setup(bootstrap: ModuleType) -> None:
    pretend_done(bootstrap, with_dev=True)
    assert not bootstrap.is_done("cuda", False)


@pytest.mark.parametrize("content", ["", "[]", "{", json.dumps({"fingerprint": None})])
def test_a_broken_stamp_counts_as_none(bootstrap: ModuleType, content: str) -> None:
    pretend_done(bootstrap, with_dev=True)
    bootstrap.STAMP.write_text(content)
    assert not bootstrap.is_done("cpu", False)


def test_a_python_that_is_gone_asks_for_a_new_setup(bootstrap: ModuleType) -> None:
    pretend_done(bootstrap, with_dev=True)
    bootstrap.VENV_PYTHON.unlink()
    bootstrap.VENV_PYTHON.symlink_to("/does/not/exist")
    assert not bootstrap.is_done("cpu", False)


def test_a_version_is_asked_of_the_interpreter_itself(
    bootstrap: ModuleType, tmp_path: Path
) -> None:
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    assert bootstrap.python_version(sys.executable) == sys.version_info[:2]
    assert bootstrap.python_version(str(shim)) is None
    assert bootstrap.python_version(str(tmp_path / "nothing")) is None


def test_an_old_python_alone_is_refused_with_a_remedy(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bootstrap, "SUPPORTED", ((99, 0),))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(bootstrap.SetupFailed, match="make PYTHON="):
        bootstrap.continue_under_supported_python()


def test_a_failing_step_is_reported_with_the_end_of_its_log(bootstrap: ModuleType) -> None:
    bootstrap.VENV.mkdir()
    failing = [sys.executable, "-c", "import sys; print('the reason'); sys.exit(3)"]
    with pytest.raises(bootstrap.SetupFailed) as caught:
        bootstrap.run("a step", failing, "What to do.")
    assert "the reason" in str(caught.value)
    assert str(caught.value).endswith("What to do.")


def test_the_program_needs_nothing_but_the_standard_library() -> None:
    program = [sys.executable, "-I", "-S", str(ROOT / "tools" / "bootstrap.py"), "--help"]
    assert subprocess.run(program, capture_output=True, check=True, timeout=60).stdout
