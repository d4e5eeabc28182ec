"""Compiled layers: the same tokens, by a plug-in that a package brings, or a clear refusal."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from novacron.engine.llm import LLM
from novacron.errors import ConfigError
from novacron.executor.compilation import find_backend
from novacron.kernels.native.library import NativeContext, NativeUnavailable
from novacron.records.request import SamplingParams
from novacron.testing.tiny_models import make_tiny_model

PLUGIN = """
from torch import fx

graphs = []


def backend(graph: fx.GraphModule, inputs):
    graphs.append(graph)
    return graph.forward


def broken(graph, inputs):
    raise RuntimeError("no such device\\nand more")
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An installed package with two backends: planted and broken. Gives its module."""
    site = tmp_path / "site"
    facts = site / "planted-1.0.dist-info"
    facts.mkdir(parents=True)
    (site / "planted_backend.py").write_text(PLUGIN)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[novacron.backends]\nplanted = planted_backend:backend\nbroken = planted_backend:broken\n"
    )
    monkeypatch.syspath_prepend(str(site))
    yield importlib.import_module("planted_backend")
    del sys.modules["planted_backend"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny")


def tokens(folder: Path, **settings: Any) -> tuple[list[tuple[int, ...]], dict[str, float]]:
    """Of prompts of several lengths, and the phases of the start."""
    llm = LLM(
        str(folder), device="cpu", dtype="float32", num_threads=1, kernels="torch",
        kv_cache_memory=2**24, **settings,
    )  # fmt: skip
    sampling = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    prompts = [list(range(5, 5 + length)) for length in (1, 3, 17, 40)]
    found = [tuple(output.token_ids) for output in llm.generate(prompts, sampling)]
    phases = dict(llm.spec.load_phases_s)
    llm.close()
    return found, phases


def test_an_installed_plug_in_compiles_one_function_for_all_layers(
    folder: Path, plugin: Any
) -> None:
    expected, plain = tokens(folder)
    found, phases = tokens(folder, compilation="planted")
    assert found == expected
    assert 1 <= len(plugin.graphs) <= 2, "any number of tokens, and perhaps one token"
    assert phases["compilation"] > 0
    assert "compilation" not in plain


def test_a_compiler_that_fails_is_said(folder: Path, plugin: Any) -> None:
    with pytest.raises(ConfigError, match=r"could not be compiled.* Set compilation to off"):
        tokens(folder, compilation="broken")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("openvino", "pip install openvino"), ("tensorrt", "pip install torch-tensorrt"),
     ("nobodys", "install the package that has it")],
)  # fmt: skip
def test_what_is_not_installed_is_named_with_its_package(name: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}', and no such plug-in is installed: {remedy}"):
        find_backend(name)


def test_native_kernels_are_not_compiled_again(folder: Path) -> None:
    try:
        NativeContext(1)
    except NativeUnavailable:
        pytest.skip("no native kernels")
    with pytest.raises(ConfigError, match="Set kernels to torch, or compilation to off"):
        LLM(str(folder), device="cpu", kernels="native", compilation="torch", num_threads=1)


def test_experts_alone_are_not_compiled(tmp_path: Path) -> None:
    folder = make_tiny_model("mixtral", tmp_path / "moe")
    with pytest.raises(ConfigError, match="all layers of this model have experts"):
        tokens(folder, compilation="torch")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of what torch calls while it compiles
@pytest.mark.parametrize(("family", "quantization"), [("llama", "none"), ("gemma2", "none"),
                                                      ("llama", "int8")])  # fmt: skip
def test_inductor_gives_the_same_tokens(family: str, quantization: str, tmp_path: Path) -> None:
    """In float32, where what it fuses rounds by some 1e-7 otherwise."""
    folder = make_tiny_model(family, tmp_path / family)
    expected, _ = tokens(folder, quantization=quantization)
    found, phases = tokens(folder, quantization=quantization, compilation="torch")
    assert found == expected
    assert phases["compilation"] > 0
