"""`novacron quantize-plan`: from a model and a budget to a file that `novacron serve` takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from novacron.config.load import load
from novacron.executor.blueprint import draw_blueprint
from novacron.testing.tiny_models import make_tiny_model

OPTIONS = ("--device", "cpu", "--dtype", "float32", "--num-threads", "1", "--window", "40")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 12)
    return text


def test_a_plan_is_made_and_its_file_serves(
    novacron, model: Path, corpus: Path, tmp_path: Path
) -> None:
    kept, output = tmp_path / "measured.json", tmp_path / "plan.yaml"
    arguments = (
        "quantize-plan", str(model), *OPTIONS, "--corpus", str(corpus), "--budget", "150k",
        "--sensitivity", str(kept), "--output", str(output),
    )  # fmt: skip
    result = novacron(*arguments)
    assert result.exit_code == 0, result.output
    assert "layers.0.self_attn.q_proj+k_proj+v_proj" in result.output
    assert "the least there is" in result.output
    served = load(file=output, env={}, flags={"device": "cpu", "dtype": "float32"}).engine.model
    assert served.quantization_layers
    weight_bytes = draw_blueprint(served, model, 1).shape().weight_bytes
    assert 120_000 < weight_bytes <= 150_000

    again = novacron(*arguments[:-2], "--corpus", "/nowhere")  # what was measured is read
    assert again.exit_code == 0, again.output
    assert again.output.splitlines()[:9] == result.output.splitlines()[:9]

    planned = re.search(r"Loses +([\d.]+) thousandths", result.output)
    explain = ("quantize", str(model), "--explain", "--sensitivity", str(kept), *OPTIONS[:6])
    explained = novacron(*explain, "--config", str(output))
    assert explained.exit_code == 0, explained.output
    told = re.search(r"weights lose ([\d.]+) mnat", explained.output)
    assert planned is not None
    assert told is not None
    assert float(told[1]) == pytest.approx(float(planned[1]), rel=0.01)
    other = novacron(*explain, "-q", "fp8")
    assert "not measured in this precision" in other.output
    assert "Quality      not measured" in novacron(*explain[:3], *explain[5:], "-q", "int8").output


def test_what_was_measured_on_another_precision_is_refused(
    novacron, model: Path, corpus: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "measured.json"
    first = (
        "quantize-plan", str(model), "--corpus", str(corpus), "--budget", "1Mi",
        "--sensitivity", str(kept), *OPTIONS,
    )  # fmt: skip
    assert novacron(*first).exit_code == 0
    result = novacron(*first, "--quantization-group-size", "64")
    assert result.exit_code == 2
    assert "group size that is usual, and this is 64" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budget", "1k"), "too few"),
        (("--budget", "lots"), "not a size"),
        (("--budget", "1Mi", "--levels", "int8,int3"), "'int3'"),
        (("--budget", "1Mi", "--levels", "bf16"), "cannot be held in bf16"),
    ],
)
def test_what_cannot_be_done_is_said(
    novacron, model: Path, corpus: Path, options: tuple[str, ...], message: str
) -> None:
    result = novacron("quantize-plan", str(model), *OPTIONS, "--corpus", str(corpus), *options)
    assert result.exit_code == 2
    assert message in result.output
