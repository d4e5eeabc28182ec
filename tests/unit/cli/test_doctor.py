"""The doctor finds what would keep a server from working, and says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from novacron.cli import doctor as doctor_module
from novacron.cli import machine
from novacron.cli.checks import Check, Verdict
from novacron.cli.listener import bind
from novacron.cli.machine import Memory
from novacron.testing.tiny_tokenizers import byte_level, write_folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """As much of a model as the doctor looks at."""
    config = {"architectures": ["LlamaForCausalLM"]}
    folder = write_folder(tmp_path / "model", byte_level(), config=config)
    save_file({"weight": np.zeros(4, np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture(autouse=True)
def enough(monkeypatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: Memory(2**34, 2**35))
    monkeypatch.setattr(machine, "free_disk", lambda path: 2**40)
    monkeypatch.setattr(machine, "instruction_sets", lambda: ["avx2"])
    monkeypatch.setattr(machine, "has_nvidia_device", lambda: False)


def test_a_healthy_machine(novacron, model: Path) -> None:
    result = novacron("doctor", str(model), "--port", "0")
    assert result.exit_code == 0, result.output
    assert "FAIL" not in result.output
    assert "LlamaForCausalLM" in result.output
    assert "This machine can serve." in result.output


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("memory", lambda: Memory(2**20, 2**35), "WARN  Memory: 1.0 MiB free"),
        ("free_disk", lambda path: 2**20, "WARN  Disk"),
        ("instruction_sets", list, "WARN  CPU"),
        ("has_nvidia_device", lambda: True, "install a CUDA build"),
    ],
)
def test_what_is_scarce_is_a_warning(novacron, model, monkeypatch, name, value, expected) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(machine, name, value)
    result = novacron("doctor", str(model), "--port", "0")
    assert result.exit_code == 0, result.output
    assert expected in result.output


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("model.safetensors", b"xx", "model.safetensors"),
        ("model.safetensors", None, "safetensors"),
        ("config.json", b'{"architectures": ["GPT9"]}', "Supported: "),
    ],
)
def test_a_bad_model_is_a_failure(novacron, model, file, content, expected) -> None:
    (model / file).unlink()
    if content is not None:
        (model / file).write_bytes(content)
    result = novacron("doctor", str(model), "--port", "0")
    assert result.exit_code == 1
    [failure] = [line for line in result.output.splitlines() if line.startswith("FAIL")]
    assert expected in failure


def test_quantised_weights_count_as_what_they_become(novacron, model: Path, monkeypatch) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"all": {"weights": {"num_bits": 4, "strategy": "channel"}}},
        },
    }
    parts = {
        "m.weight_packed": np.zeros((1024, 128), np.int32),
        "m.weight_scale": np.ones((1024, 1), np.float32),
        "m.weight_shape": np.array([1024, 1024]),
    }
    (model / "config.json").write_text(json.dumps(config))
    save_file(parts, model / "model.safetensors")
    monkeypatch.setattr(machine, "memory", lambda: Memory(2**20, 2**35))
    result = novacron("doctor", str(model), "--port", "0")
    assert "WARN  Weights" in result.output
    assert "2.0 MiB in 16 bits" in result.output


def test_a_missing_gpu_is_a_failure_only_if_asked_for(novacron, model, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert novacron("doctor", str(model), "--port", "0", "--device", "cpu").exit_code == 0
    result = novacron("doctor", str(model), "--port", "0", "--device", "cuda")
    assert result.exit_code == 1
    assert "--device cpu" in result.output


def test_a_taken_port_is_a_failure(novacron, model) -> None:
    with bind("127.0.0.1", 0) as listener:
        result = novacron("doctor", str(model), "--port", str(listener.getsockname()[1]))
    assert result.exit_code == 1
    assert "FAIL  Address" in result.output


def test_a_remedy_is_shown_unless_the_check_passed(capsys) -> None:
    checks = [Check(verdict, "x", "y", f"do {verdict}") for verdict in Verdict]
    assert doctor_module.show(checks) == 1
    output = capsys.readouterr().out
    assert "do WARN" in output
    assert "do FAIL" in output
    assert "do PASS" not in output
