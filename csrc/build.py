"""Compiles the CPU kernels into the package: a step of `pip install`, or `python csrc/build.py`.

The result is one shared library with a plain C interface, so it is tied neither to a version of
Python nor to one of torch. Each instruction set is a file of levels/ with flags of its own, and
the library chooses when it runs: nothing is built for the machine that happens to compile it.

Needs a C++17 compiler (the one that CXX names, or c++, g++, clang++). Without one, NovaCron is
installed all the same and computes with PyTorch's own operators.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path(__file__).resolve().parent
LIBRARY = SOURCE.parent / "src/novacron/kernels/native/libnovacron_kernels.so"

# A product and a sum become one rounding only where the code says so: results must not depend on
# how a compiler treats one loop or another.
FLAGS = ("-std=gnu++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-pthread")

_AVX2 = ("-mavx2", "-mfma")
_AVX512 = tuple(
    "-mavx2 -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512".split()
)
X86_LEVELS = {
    "avx2": _AVX2,
    "avx2_vnni": (*_AVX2, "-mavxvnni"),
    "avx512": _AVX512,
    "avx512_vnni": (*_AVX512, "-mavx512vnni"),
    "avx512_bf16": (*_AVX512, "-mavx512vnni", "-mavx512bf16"),
}


class BuildFailed(Exception):
    """Why there is no library, as a sentence, perhaps with what the compiler said."""


def build_library(library: Path = LIBRARY) -> list[str]:
    """Compile everything; returns the levels that were left out because this compiler is too old
    for them. Raises BuildFailed, and leaves no library behind then."""
    library.unlink(missing_ok=True)
    compiler = _find_compiler()
    levels = X86_LEVELS if platform.machine().lower() in ("x86_64", "amd64") else {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as threads:

        def compile_file(source: str, flags: tuple[str, ...]) -> Path:
            target = Path(folder) / f"{Path(source).stem}.o"
            _run([*compiler, *FLAGS, *flags, "-c", str(SOURCE / source), "-o", str(target)])
            return target

        common = [
            threads.submit(compile_file, source, ())
            for source in (
                "thread_pool.cpp",
                "program.cpp",
                "packing.cpp",
                "experts.cpp",
                "rank_group.cpp",
                "collectives.cpp",
                "sampling.cpp",
                "levels/portable.cpp",
            )
        ]
        attempts = {
            name: threads.submit(compile_file, f"levels/{name}.cpp", flags)
            for name, flags in levels.items()
        }
        left_out = [name for name, attempt in attempts.items() if attempt.exception()]
        present = [name for name in attempts if name not in left_out]
        objects = [attempt.result() for attempt in common]
        objects += [attempts[name].result() for name in present]
        objects += [compile_file("api.cpp", tuple(f"-DNOVACRON_HAS_{n.upper()}" for n in present))]
        linked = Path(folder) / library.name
        _run([*compiler, "-shared", "-pthread", *map(str, objects), "-o", str(linked)])
        shutil.copy(linked, library)
    return left_out


def _find_compiler() -> list[str]:
    named = shlex.split(os.environ.get("CXX", ""))
    if named:
        return named
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise BuildFailed("no C++ compiler was found (c++, g++, clang++, or what CXX names)")


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as error:
        raise BuildFailed(f"{command[0]} cannot be run: {error}") from error
    except subprocess.CalledProcessError as error:
        raise BuildFailed(f"{shlex.join(command)} failed:\n{error.stderr[-4000:]}") from error


class KernelBuildHook(BuildHookInterface[Any]):
    """Called by hatchling before it packs a wheel or makes an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        try:
            left_out = build_library()
        except BuildFailed as failure:
            self.app.display_warning(
                "NovaCron is installed WITHOUT its native CPU kernels and will be slow on CPU: "
                f"{failure}\nInstall a C++17 compiler (Debian: apt install g++), then install "
                "NovaCron again."
            )
            return
        if left_out:
            self.app.display_warning(f"This compiler is too old for: {', '.join(left_out)}.")
        build_data["artifacts"].append(str(LIBRARY.relative_to(self.root)))
        build_data["pure_python"] = False
        system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{system}"


if __name__ == "__main__":
    try:
        too_new = build_library()
    except BuildFailed as failure:
        sys.exit(f"The native kernels were not built: {failure}")
    print(f"Built {LIBRARY}", f"without {', '.join(too_new)}" if too_new else "")
