"""What cannot be served ends the command soon, with a non-zero code, naming file and reason."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from novacron.testing.server_process import run_novacron
from novacron.testing.tiny_models import make_tiny_model


@pytest.fixture(scope="module")
def good_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def model(good_model: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    return Path(shutil.copytree(good_model, tmp_path / "broken-model"))


def truncate_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def change_weights(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def breaks(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        name = "model.layers.1.mlp.up_proj.weight"
        weights[name] = change(weights[name]).contiguous()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return breaks


def change_config(**fields: object) -> Callable[[Path], None]:
    def breaks(folder: Path) -> None:
        config = folder / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))

    return breaks


def write_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    def breaks(folder: Path) -> None:
        (folder / name).write_text(text)

    return breaks


with_nan = change_weights(lambda weight: torch.full_like(weight, torch.nan))

BROKEN = {
    "truncated weights": (truncate_weights, ["model.safetensors"]),
    "wrong shape": (
        change_weights(lambda weight: weight[:-1]),
        ["model.safetensors", "model.layers.1.mlp.up_proj.weight", "127", "128"],
    ),
    "NaN weights": (with_nan, ["model.safetensors", "model.layers.1.mlp.up_proj.weight", "NaN"]),
    "only pickled weights": (write_pickle, ["pytorch_model.bin", "safetensors"]),
    "no tokenizer": (remove("tokenizer.json"), ["tokenizer.json"]),
    "broken tokenizer": (write("tokenizer.json", "{}"), ["tokenizer.json"]),
    "no config": (remove("config.json"), ["config.json"]),
    "config that is no JSON": (write("config.json", "{"), ["config.json"]),
    "unknown architecture": (
        change_config(architectures=["NobodysForCausalLM"], model_type="nobodys"),
        ["config.json", "NobodysForCausalLM", "LlamaForCausalLM"],
    ),
    "impossible numbers": (change_config(num_attention_heads=7), ["config.json", "7"]),
}


ALSO_IN_UNIT_TESTS = {
    "only pickled weights", "no config", "impossible numbers", "broken tokenizer",
}  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] if kind in ALSO_IN_UNIT_TESTS else [])
        for kind in BROKEN
    ],
)
def test_a_broken_model_is_named_with_its_file_and_the_reason(model: Path, kind: str) -> None:
    breaks, expected = BROKEN[kind]
    breaks(model)
    run = run_novacron("serve", "--port", "0", "--num-threads", "1", str(model))
    assert run.returncode == 1
    (line,) = error_lines(run.stderr)
    assert str(model) in line
    for text in expected:
        assert text in line
    assert "Traceback" not in run.stderr


def error_lines(stderr: str) -> list[str]:
    """Without the log, which is JSON."""
    return [line for line in stderr.splitlines() if not line.startswith("{")]


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "no-such-folder", "nobody/no-such-model-anywhere"]
)
def test_a_model_that_is_not_there(name: str) -> None:
    run = run_novacron("serve", "--port", "0", name)
    assert run.returncode == 1
    (line,) = error_lines(run.stderr)
    assert line.startswith(f"Error: '{name}'")


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = run_novacron("serve", "--port", str(port))
    assert run.returncode == 2
    assert f"port is {port}" in run.stderr
    assert "another program listens there" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--no-such-flag"], {}, "--no-such-flag"),
        (["--block-size", "17"], {}, "block_size is 17"),
        (["--max-num-seqs", "many"], {}, "max_num_seqs"),
        ([], {"NOVACRON_BLOCK_SIZE": "17"}, "NOVACRON_BLOCK_SIZE"),
        (["--config", "/no/such/file.yaml"], {}, "/no/such/file.yaml"),
    ],
)
def test_a_wrong_setting_is_named_with_its_origin(
    arguments: list[str], environment: dict[str, str], expected: str
) -> None:
    run = run_novacron("serve", *arguments, environment=environment)
    assert run.returncode == 2
    assert expected in run.stderr
    assert "Traceback" not in run.stderr


def test_a_wrong_key_in_the_file_is_named_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "novacron.yaml"
    file.write_text("cache:\n  block_sizes: 16\n")
    run = run_novacron("serve", "--config", str(file))
    assert run.returncode == 2
    assert f"Unknown key 'cache.block_sizes' in {file}" in run.stderr
    assert "cache.block_size'" in run.stderr


def test_a_context_that_does_not_fit_is_refused_with_numbers_before_loading(
    good_model: Path,
) -> None:
    options = ("--kv-cache-memory", "64Ki", "--max-model-len", "512", "--device", "cpu")
    served = run_novacron("serve", "--port", "0", *options, str(good_model))
    planned = run_novacron("plan", *options, str(good_model))
    assert served.returncode == 1
    assert planned.returncode == 2
    for run in (served, planned):
        (line,) = error_lines(run.stderr)
        assert "max_model_len is 512, but the KV cache has room for" in line
        assert "free on cpu" in line
        assert "with kv_cache_dtype int8" in line


def test_plan_tells_what_fits(good_model: Path) -> None:
    run = run_novacron("plan", "--json", "--kv-cache-memory", "8Mi", str(good_model))
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["max_model_len"] == 512
