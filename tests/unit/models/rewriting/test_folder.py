"""A folder of rounded weights: what is in it, and that work which was ended goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from novacron.config.model import ModelConfig
from novacron.engine.model_path import resolve_model_path
from novacron.errors import ConfigError, ModelLoadError
from novacron.executor.rewriting import rewrite
from novacron.testing.tiny_models import make_tiny_model

SHARD_BYTES = 2**14


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny")


def settings(
    quantization: str = "int4", *layers: str, group_size: int | None = None
) -> ModelConfig:
    return ModelConfig(
        device="cpu",
        quantization=quantization,  # type: ignore[arg-type]
        quantization_layers=layers,
        quantization_group_size=group_size,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    rewrite(settings(), source, out, shard_bytes=SHARD_BYTES)
    return out


def test_everything_else_is_copied(source: Path, whole: Path) -> None:
    before, after = contents(source), contents(whole)
    others = {name for name in before if not name.startswith("model") and name != "config.json"}
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    assert not any("unfinished" in name or name == "quantize.json" for name in after)


def test_files_are_no_larger_than_asked_for_and_the_index_knows_them(whole: Path) -> None:
    index = json.loads((whole / "model.safetensors.index.json").read_text())
    files = {path.name: load_file(path) for path in whole.glob("*.safetensors")}
    assert len(files) > 3
    found = {name: file for file, tensors in files.items() for name in tensors}
    assert index["weight_map"] == found
    sizes = [sum(t.nbytes for t in tensors.values()) for tensors in files.values()]
    assert index["metadata"]["total_size"] == sum(sizes)
    assert all(
        size <= SHARD_BYTES or len(tensors) <= 3
        for size, tensors in zip(sizes, files.values(), strict=True)
    )


def test_what_is_not_rounded_is_as_it_was(source: Path, whole: Path) -> None:
    before = load_file(source / "model.safetensors")
    for path in whole.glob("*.safetensors"):
        for name, tensor in load_file(path).items():
            if "weight_" not in name:
                assert torch.equal(tensor, before[name])
                assert tensor.dtype == before[name].dtype


class Ended(Exception):
    pass


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.7, 0.95, 1.0])
def test_work_that_was_ended_goes_on(
    source: Path, whole: Path, tmp_path: Path, share: float
) -> None:
    def end(fraction: float) -> None:
        if fraction >= share:
            raise Ended

    with pytest.raises(Ended):
        rewrite(settings(), source, tmp_path / "out", shard_bytes=SHARD_BYTES, progress=end)
    with pytest.raises(ModelLoadError, match="novacron quantize has not finished it"):
        resolve_model_path(str(tmp_path / "out"))
    kept = {path.name: path.stat().st_ino for path in (tmp_path / "out").glob("*.safetensors")}
    rewrite(settings(), source, tmp_path / "out", shard_bytes=SHARD_BYTES)
    assert contents(tmp_path / "out") == contents(whole)
    for name, inode in kept.items():
        assert (tmp_path / "out" / name).stat().st_ino == inode, "it was written again"


KILLED = """
import os, signal, sys
from pathlib import Path
from novacron.config.model import ModelConfig
from novacron.executor.rewriting import rewrite

def progress(fraction):
    if fraction > 0.5:
        os.kill(os.getpid(), signal.SIGKILL)

config = ModelConfig(device="cpu", quantization="int4")
rewrite(config, Path(sys.argv[1]), Path(sys.argv[2]), shard_bytes=2**14, progress=progress)
"""


def test_a_killed_process_leaves_nothing_half_written(
    source: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(source), str(out)]
    result = subprocess.run(command, timeout=120, capture_output=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    complete = contents(whole)
    for path in out.glob("*.safetensors"):
        assert path.read_bytes() == complete[path.name]
    rewrite(settings(), source, out, shard_bytes=SHARD_BYTES)
    assert contents(out).keys() - complete.keys() <= {
        name for name in os.listdir(out) if name.endswith(".unfinished")
    }
    assert all(contents(out)[name] == content for name, content in complete.items())


@pytest.mark.parametrize(
    "other", [settings("int8"), settings("int4", "*.0.*=int8"), settings(group_size=64)]
)
def test_another_work_is_not_gone_on_with(source: Path, tmp_path: Path, other: ModelConfig) -> None:
    def end(fraction: float) -> None:
        raise Ended

    with pytest.raises(Ended):
        rewrite(settings(), source, tmp_path / "out", shard_bytes=SHARD_BYTES, progress=end)
    with pytest.raises(ConfigError, match="the beginning of another model or precision"):
        rewrite(other, source, tmp_path / "out", shard_bytes=SHARD_BYTES)


def test_a_folder_with_something_in_it_is_left_alone(source: Path, whole: Path) -> None:
    with pytest.raises(ConfigError, match="holds a model already"):
        rewrite(settings(), source, whole, shard_bytes=SHARD_BYTES)
    with pytest.raises(ConfigError, match="is not empty"):
        rewrite(settings(), source, source.parent, shard_bytes=SHARD_BYTES)


def test_a_choice_that_rounds_nothing_is_refused(source: Path, tmp_path: Path) -> None:
    for nothing in ("none", "auto", "quality_critical"):
        with pytest.raises(ConfigError, match="rounds nothing"):
            rewrite(settings(nothing), source, tmp_path / "out", shard_bytes=SHARD_BYTES)


def test_inputs_that_are_no_whole_groups_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="64 inputs, which are no whole groups of 128"):
        rewrite(settings(group_size=128), source, tmp_path / "out", shard_bytes=SHARD_BYTES)


def test_a_type_that_cannot_be_copied_is_refused(source: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = load_file(source / "model.safetensors")
    tensors["model.rotary_emb.inv_freq"] = torch.zeros(3, dtype=torch.int16)
    save_file(tensors, strange / "model.safetensors")
    with pytest.raises(ConfigError, match="inv_freq' is stored as I16, which cannot"):
        rewrite(settings(), strange, tmp_path / "out", shard_bytes=SHARD_BYTES)
