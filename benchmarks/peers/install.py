"""Install the peers into .venv-peers, once: `make bench-peers` does so before it measures.

llama.cpp is built from the sources that llama-cpp-python ships, for this machine's processor, with
its server; the binding is then pointed at that build. Takes some minutes of compiling. Nothing that
is installed here is a dependency of NovaCron.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENT = ROOT / ".venv-peers"
REQUIREMENTS = HERE / "requirements.txt"
LLAMA_CPP_PYTHON = "llama-cpp-python==0.3.36"
TORCH = "torch==2.13.0+cpu"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

_STAMP = ENVIRONMENT / ".installed"
_LOG = ENVIRONMENT / "install.log"
_PIP = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
_INSTALL = [*_PIP, "install", "--quiet", "--no-input", "--no-deps"]
_OFF = ("LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_APP", "LLAMA_USE_PREBUILT_UI",
        "LLAMA_OPENSSL", "LLAMA_CURL")  # fmt: skip


def main() -> None:
    if _STAMP.exists() and _STAMP.read_text() == _fingerprint():
        return
    print(f"Installing the peers into {ENVIRONMENT.name} (once; some minutes)", flush=True)
    venv.create(ENVIRONMENT, with_pip=True)
    _LOG.write_text("")
    if not _succeeds("torch", [*_INSTALL, "--only-binary", ":all:", "--retries", "1", TORCH]):
        _run("torch, from pytorch.org", [*_INSTALL, "--index-url", CPU_INDEX, TORCH])
    _run("the other engines", [*_INSTALL, "-r", str(REQUIREMENTS)])
    _install_llama_cpp()
    _STAMP.write_text(_fingerprint())


def _install_llama_cpp() -> None:
    downloads = ENVIRONMENT / "downloads"
    download = [*_PIP, "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
    _run("llama.cpp's sources", [*download, "--dest", str(downloads), LLAMA_CPP_PYTHON])
    [archive] = downloads.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(downloads, filter="data")
    sources_folder = archive.with_name(archive.name.removesuffix(".tar.gz")) / "vendor/llama.cpp"
    build = str(ENVIRONMENT / "llama.cpp")
    cmake = str(ENVIRONMENT / "bin" / "cmake")
    switches = ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DGGML_NATIVE=ON"]
    switches += [f"-D{name}=OFF" for name in _OFF]
    _run("llama.cpp, configure", [cmake, "-S", str(sources_folder), "-B", build, *switches])
    num_jobs = str(len(os.sched_getaffinity(0)))
    targets = ["--target", "llama", "llama-server"]
    _run("llama.cpp, build", [cmake, "--build", build, "--parallel", num_jobs, *targets])
    binding_only = {**os.environ, "CMAKE_ARGS": "-DLLAMA_BUILD=OFF"}
    _run("llama.cpp's binding", [*_INSTALL, str(archive)], binding_only)


def _fingerprint() -> str:
    """Digest of all that decides what belongs into the environment."""
    return hashlib.sha256(REQUIREMENTS.read_bytes() + Path(__file__).read_bytes()).hexdigest()


def _run(label: str, command: list[str], environment: dict[str, str] | None = None) -> None:
    if not _succeeds(label, command, environment):
        lines = _LOG.read_text().splitlines()[-15:]
        sys.exit("\n".join([f"{label} failed; the end of {_LOG}:", *lines]))


def _succeeds(label: str, command: list[str], environment: dict[str, str] | None = None) -> bool:
    print(f"  {label}", flush=True)
    with _LOG.open("a") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        log.flush()
        done = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    main()
