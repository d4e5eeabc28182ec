from __future__ import annotations

import re
from pathlib import Path

import pytest

from novacron.testing.gguf_models import write_gguf
from novacron.testing.tiny_models import make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny")


def rows(output: str) -> dict[str, list[str]]:
    lines = [line.replace(", ", ",").split("  ") for line in output.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    return {line[0]: line[1:] for line in cells if line}


def test_explains_a_profile(novacron, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And reads no weights for it."""
    monkeypatch.setattr("novacron.models.loading.load_weights", None)
    command = ("quantize", str(model), "--explain", "--device", "cpu", "--dtype", "bfloat16")
    result = novacron(*command, "--profile", "memory_critical")
    assert result.exit_code == 0, result.output
    found = rows(result.output)
    assert found["ffn down"][:2] == ["int4", "int4"]
    assert found["output head"][:2] == ["fp16", "bf16"]
    assert "Different here from what was asked for:" in result.output
    plain = rows(novacron(*command).output)
    assert plain["all"][-2:] == ["100%", "50%"]


def test_explains_the_cache(novacron, model: Path) -> None:
    def cache(*options: str) -> str:
        command = ("quantize", str(model), "--explain", "--device", "cpu", "--dtype", "bfloat16")
        result = novacron(*command, *options)
        assert result.exit_code == 0, result.output
        [line] = [one for one in result.output.splitlines() if one.startswith("KV cache")]
        return " ".join(line.split())

    # 3 layers of 4 heads of 8 dimensions, of which int4 holds 32; blocks of 16 tokens.
    of_keys, of_values = 3 * 4 * 192 / 16, 3 * 4 * 320 / 16
    assert cache("-q", "memory_critical") == (
        f"KV cache in int8/int4: {of_keys + of_values:.0f} B a token, 100% of bfloat16; "
        "asked for: keys int8, values int4"
    )
    assert cache("-q", "int8") == "KV cache in bfloat16: 384 B a token, 100% of bfloat16"
    assert cache("-q", "balanced", "--kv-cache-dtype", "int8") == (
        "KV cache in int8: 288 B a token, 75% of bfloat16; kv_cache_dtype wins over the profile"
    )


def test_says_what_a_choice_loses_on_the_bundled_model(novacron) -> None:
    """Which was measured and comes with it."""

    def quality(*options: str) -> float:
        command = ("quantize", "--explain", "--device", "cpu", "--dtype", "bfloat16")
        result = novacron(*command, "--kernels", "torch", *options)
        assert result.exit_code == 0, result.output
        return float(re.search(r"added up: quality ([\d.]+)", result.output)[1])

    assert quality("-q", "int8") > quality("-q", "balanced") - 1e-3 > 0.99
    assert quality("-q", "int8") > quality("-q", "memory_critical") > quality("-q", "int4") > 0.9
    finer = quality("-q", "int4", "--quantization-layers", "model.layers.0.*=int8")
    assert finer > quality("-q", "int4")


def test_explains_a_shape_that_nobody_has(novacron) -> None:
    result = novacron("quantize", "--explain", "--shape", "405b", "-q", "int4", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert rows(result.output)["all"][0] == "405,853,388,800"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--explain", "--shape", "9z"), "There is no shape '9z'"),
        (("--explain", "--profile", "small"), "expected one of auto, .* balanced"),
        (("--explain", "--quantization-layers", "*.wq.*=int8"), "but no matrix"),
        (("--explain", "--quantization-layers", "int8"), "give PATTERN=LEVEL"),
        (("--explain", "--shape", "8b", "--model", "x"), "--shape goes with --explain"),
        (("--out", "x", "--sensitivity", __file__), "--sensitivity goes with --explain MODEL"),
        (("--explain", "--sensitivity", __file__), "holds no sensitivities"),
        ((), "--explain, or --out"),
        (("--out", "x", "-q", "int8", "--kv-cache-dtype", "int8"), "cannot be written into a"),
    ],
)
def test_refusals(novacron, arguments: tuple[str, ...], reason: str) -> None:
    result = novacron("quantize", *arguments)
    assert result.exit_code == 2
    assert re.search(reason, result.output)


def test_writes_a_folder(novacron, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("quantize", str(model), "--device", "cpu", "--out", str(out))
    result = novacron(*command, "--profile", "memory_critical", "--shard-size", "16Ki")
    assert result.exit_code == 0, result.output
    assert f"novacron serve {out}" in result.output
    plan = novacron("plan", str(out), "--device", "cpu")
    assert plan.exit_code == 0, plan.output
    assert "tokens in int8/int4" in plan.output
    again = novacron(*command, "--profile", "memory_critical")
    assert again.exit_code == 2
    assert "holds a model already" in again.output


def test_writes_a_folder_of_a_gguf_file(novacron, model: Path, tmp_path: Path) -> None:
    """With the tokenizer that is in the file, or that of a folder; refused if there is none."""
    file = write_gguf(model, tmp_path / "model.gguf", "Q8_0")
    command = ("quantize", str(file), "--device", "cpu", "-q", "int4", "--out")
    result = novacron(*command, str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    plan = novacron("plan", str(tmp_path / "out"), "--device", "cpu")
    assert plan.exit_code == 0, plan.output
    result = novacron(*command, str(tmp_path / "named"), "--tokenizer", str(model))
    assert result.exit_code == 0, result.output
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "named" / name).read_text() == (model / name).read_text()
    result = novacron(*command, str(tmp_path / "none"), "--tokenizer", str(tmp_path))
    assert result.exit_code == 1
    assert "tokenizer.json" in result.output
    assert not (tmp_path / "none").exists()
