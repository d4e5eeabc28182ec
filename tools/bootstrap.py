"""Make .venv: a Python, the pinned dependencies, the right build of torch, and NovaCron in place.

    python3 tools/bootstrap.py [--dev]

Called by the Makefile before everything else. Works with the standard library alone, and any
Python 3.7+ can start it: it looks for one that NovaCron supports and goes on under that. A second
call finds its stamp and returns at once; a change of the lock files, of pyproject.toml, of this
file, of the sources of the CPU kernels, of the folder or of the machine's GPU makes it run again.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import List, Mapping, Optional, Tuple  # noqa: UP035  old Pythons start this file

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
KERNELS = ROOT / "src" / "novacron" / "kernels" / "native" / "libnovacron_kernels.so"
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".novacron-setup.json"
LOG = VENV / "setup.log"

SUPPORTED = ((3, 11), (3, 12), (3, 13))
TORCH_VERSION = "2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PIP_ZIPAPP = "https://bootstrap.pypa.io/pip/pip.pyz"
NVIDIA_DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl")

Command = List[str]  # noqa: UP006


class SetupFailed(Exception):
    """Setup cannot go on. The message says why and what to do."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dev", action="store_true", help="also what tests and checks need")
    with_dev = parser.parse_args().dev
    try:
        torch = choose_torch(os.environ, platform.system(), has_nvidia_gpu())
        if is_done(torch, with_dev):
            return
        continue_under_supported_python()
        with open(__file__) as this_file:
            fcntl.flock(this_file, fcntl.LOCK_EX)  # a second `make` waits for the first
            if not is_done(torch, with_dev):
                set_up(torch, with_dev)
    except SetupFailed as failure:
        sys.exit(f"\nSetup failed. {failure}")
    except KeyboardInterrupt:
        sys.exit("\nSetup was interrupted. The next call carries on.")


def set_up(torch: str, with_dev: bool) -> None:
    started = time.monotonic()
    version = platform.python_version()
    say(f"Setting up .venv with Python {version} (once; later runs start at once)")
    pip = make_venv()
    install_torch(pip, torch)
    install(pip, "dependencies", ["--no-deps", "-r", str(ROOT / "requirements.lock")])
    if with_dev:
        dev = ["--no-deps", "-r", str(ROOT / "requirements-dev.lock")]
        install(pip, "tools for tests and checks", dev)
    in_place = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    install(pip, "NovaCron", in_place)
    compile_sources()
    run("checking versions", [*pip, "check"], "Delete .venv and try again.")
    write_stamp(torch, with_dev)
    if not KERNELS.exists():
        say("The CPU kernels could not be built: NovaCron will be slow on CPU. For full speed,")
        say(f"install a C++17 compiler (Debian: apt install g++) and delete {STAMP}.")
    say(f"Done in {time.monotonic() - started:.0f} s")


# What is there already


def fingerprint(torch: str) -> str:
    """Digest of all that decides what belongs into .venv."""
    digest = hashlib.sha256(f"{ROOT}\0{torch}\0".encode())
    for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    for kernel_source in sorted((ROOT / "csrc").rglob("*.*")):
        if kernel_source.suffix in (".cpp", ".h", ".inc", ".py"):
            digest.update(kernel_source.read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


def is_done(torch: str, with_dev: bool) -> bool:
    stamp = read_stamp()
    return (
        stamp.get("fingerprint") == fingerprint(torch)
        and (stamp.get("dev") is True or not with_dev)
        and VENV_PYTHON.exists()
    )


def read_stamp() -> Mapping[str, object]:
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(torch: str, with_dev: bool) -> None:
    stamp = {"fingerprint": fingerprint(torch), "dev": with_dev, "root": str(ROOT)}
    STAMP.write_text(json.dumps(stamp))


# Python


def continue_under_supported_python() -> None:
    """Return if this Python is supported; else replace this process by one that is."""
    if sys.version_info[:2] in SUPPORTED:
        return
    for major, minor in reversed(SUPPORTED):
        found = shutil.which(f"python{major}.{minor}")
        if found and python_version(found) == (major, minor):
            os.execv(found, [found, *sys.argv])
    if sys.version_info[:2] > SUPPORTED[-1]:
        say(f"Python {platform.python_version()} is newer than those NovaCron is tested with.")
        return
    raise SetupFailed(
        f"NovaCron needs Python 3.11, 3.12 or 3.13; this is {platform.python_version()} and no "
        "other was found on the PATH. Install one (Debian, Ubuntu: apt install python3.11-venv, or "
        "see https://docs.astral.sh/uv/guides/install-python), then try again, or name it: "
        "make PYTHON=/path/to/python3.12 setup"
    )


def python_version(python: str) -> Optional[Tuple[int, int]]:  # noqa: UP006, UP045
    """Version of an interpreter; None if it does not run (a version manager's shim may not)."""
    program = "import sys; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-c", program], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    numbers = answer.stdout.split()
    return (int(numbers[0]), int(numbers[1])) if answer.returncode == 0 else None


def make_venv() -> Command:
    """Create .venv where it is missing, broken or was moved; return the command for its pip."""
    moved = read_stamp().get("root", str(ROOT)) != str(ROOT)
    if VENV.exists() and (moved or (python_version(str(VENV_PYTHON)) or (0, 0)) < SUPPORTED[0]):
        shutil.rmtree(VENV)
    if STAMP.exists():
        STAMP.unlink()
    if not VENV.exists():
        say("  creating .venv")
        has_ensurepip = importlib.util.find_spec("ensurepip") is not None
        options = [] if has_ensurepip else ["--without-pip"]
        venv = [sys.executable, "-m", "venv", *options, str(VENV)]
        made = subprocess.run(venv, capture_output=True, text=True)
        if made.returncode != 0:
            shutil.rmtree(VENV, ignore_errors=True)
            raise SetupFailed(f"{shlex.join(venv)} said:\n{made.stdout}{made.stderr}")
    return pip_command()


def pip_command() -> Command:
    """The venv's pip; where Debian left that out, this Python's, or else a downloaded one."""
    own = [str(VENV_PYTHON), "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True).returncode == 0:
        return own
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--python", str(VENV_PYTHON)]
    zipapp = VENV / "pip.pyz"
    if not zipapp.exists():
        download_pip(zipapp)
    return [sys.executable, str(zipapp), "--python", str(VENV_PYTHON)]


def download_pip(target: Path) -> None:
    say(f"  this Python has no pip: fetching {PIP_ZIPAPP}")
    try:
        with urllib.request.urlopen(PIP_ZIPAPP, timeout=60) as answer:  # nosec B310 # an https URL
            target.write_bytes(answer.read())
    except (urllib.error.URLError, OSError) as error:
        raise SetupFailed(
            f"This Python came without ensurepip and pip, and {PIP_ZIPAPP} cannot be reached "
            f"({error}). Install them (Debian, Ubuntu: apt install python3-venv), then try again."
        ) from error


# torch


def has_nvidia_gpu() -> bool:
    if any(os.path.exists(path) for path in NVIDIA_DRIVER_FILES):
        return True
    if shutil.which("nvidia-smi") is None:  # Windows' Linux has nothing but this program
        return False
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU 0" in listed.stdout


def choose_torch(environment: Mapping[str, str], system: str, gpu: bool) -> str:
    """`cpu`, `cuda`, `plain` (what PyPI has for the system), or arguments for pip as given."""
    asked = environment.get("NOVACRON_TORCH", "").strip()
    if asked:
        return asked
    if system != "Linux":
        return "plain"
    return "cuda" if gpu else "cpu"


def torch_attempts(choice: str) -> List[Tuple[str, Command]]:  # noqa: UP006
    """Ways to get the torch of our choice, in order: what it is, and arguments for pip.

    PyPI's torch for Linux brings gigabytes of CUDA. So a CPU build is asked for by its exact name,
    first where pip looks anyway (a mirror or a folder of wheels may have it), then at PyTorch.
    """
    cpu = ["--no-deps", "--only-binary", ":all:", f"torch=={TORCH_VERSION}+cpu"]
    known = {
        "cpu": [
            ("torch (CPU build)", [*cpu, "--retries", "1"]),
            ("torch (CPU build, from pytorch.org)", [*cpu, "--index-url", CPU_INDEX]),
        ],
        # === refuses a "+cpu" build that a mirror may offer under the same number
        "cuda": [("torch (CUDA build, several GB)", [f"torch==={TORCH_VERSION}"])],
        "plain": [("torch", [f"torch=={TORCH_VERSION}"])],
    }
    return known.get(choice, [("torch (NOVACRON_TORCH)", shlex.split(choice))])


def install_torch(pip: Command, choice: str) -> None:
    constraint = ["-c", str(ROOT / "requirements.lock")]
    attempts = torch_attempts(choice)
    for label, arguments in attempts:
        if succeeds(label, [*pip, *PIP_INSTALL, *arguments, *constraint], "not there"):
            return
    sources = "pip's own sources" + (f" and {CPU_INDEX}" if choice == "cpu" else "")
    raise SetupFailed(
        f"No torch {TORCH_VERSION} ({choice}) for Python {platform.python_version()} on "
        f"{platform.machine()} was found in {sources}.\n{end_of_log()}\n"
        "What helps: give pip a source that has it (PIP_INDEX_URL for a mirror, PIP_FIND_LINKS for "
        "a folder of wheels), or say what to install, for example\n"
        f"  NOVACRON_TORCH=/path/to/torch-{TORCH_VERSION}.whl make setup\n"
        f"  NOVACRON_TORCH='torch=={TORCH_VERSION} --index-url {CPU_INDEX}' make setup\n"
        "  NOVACRON_TORCH=cuda make setup      (PyPI's CUDA build, several GB; runs on CPU as well)"
    )


# Running things

PIP_INSTALL = ["install", "--quiet", "--no-input", "--disable-pip-version-check"]


def install(pip: Command, what: str, arguments: Command) -> None:
    remedy = "Look whether pip reaches its package index (PIP_INDEX_URL, proxy), then try again."
    run(what, [*pip, *PIP_INSTALL, *arguments], remedy)


def compile_sources() -> None:
    """As pip does with a wheel: where Python is told to write no bytecode (PYTHONDONTWRITEBYTECODE,
    usual in containers), every start would compile what it imports, a fifth of its time."""
    command = [str(VENV_PYTHON), "-m", "compileall", "-q", str(ROOT / "src")]
    succeeds("bytecode", command, otherwise="not written")


def run(label: str, command: Command, remedy: str) -> None:
    if not succeeds(label, command):
        raise SetupFailed(f"{shlex.join(command)} failed.\n{end_of_log()}\n{remedy}")


def succeeds(label: str, command: Command, otherwise: str = "failed") -> bool:
    """Run a command with its output in setup.log, and show how long it takes."""
    started = time.monotonic()
    on_terminal = sys.stdout.isatty()
    with open(LOG, "a") as log:
        log.write(f"\n$ {shlex.join(command)}\n")
        log.flush()
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                time.sleep(0.1)
                if on_terminal:
                    elapsed_s = time.monotonic() - started
                    print(f"\r  {label} ... {elapsed_s:.0f} s ", end="", flush=True)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    result = "" if process.returncode == 0 else f": {otherwise}"
    start_of_line = "\r" if on_terminal else ""
    say(f"{start_of_line}  {label} ... {time.monotonic() - started:.0f} s{result}")
    return process.returncode == 0


def end_of_log(num_lines: int = 12) -> str:
    lines = LOG.read_text().splitlines()[-num_lines:]
    return "\n".join("  | " + line for line in lines)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
