from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from novacron.config.model import ModelConfig
from novacron.errors import ConfigError
from novacron.executor import calibration
from novacron.executor.blueprint import draw_blueprint
from novacron.executor.calibration import second_moments
from novacron.testing.tiny_models import make_tiny_model

TEXTS = (tuple(range(5, 45)), (7,), tuple(range(60, 5, -1)))
NAMES = {
    "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.o_proj.weight",
    "model.layers.1.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny")


def test_moments_are_those_of_the_inputs_in_transformers(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected: dict[str, Tensor] = {}

    def watch(name: str) -> None:
        def add(module: object, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2)
            expected[name] = expected.get(name, torch.zeros(())) + x.T @ x

        model.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(add)

    for name in NAMES:
        watch(name)
    with torch.inference_mode():
        for token_ids in TEXTS:
            model(torch.tensor([token_ids]))
    config = ModelConfig(device="cpu", dtype="float32", quantization="int4")
    found = second_moments(draw_blueprint(config, folder, 1), TEXTS, frozenset(NAMES))
    total = sum(map(len, TEXTS))
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name] / total, rtol=1e-3, atol=1e-5)


def test_no_text_is_refused(folder: Path) -> None:
    blueprint = draw_blueprint(ModelConfig(device="cpu"), folder, 1)
    for texts in ((), ((),)):
        with pytest.raises(ConfigError, match="no text to calibrate with"):
            second_moments(blueprint, texts, frozenset(NAMES))


def test_too_little_memory_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_USABLE_SHARE", 0.0)
    blueprint = draw_blueprint(ModelConfig(device="cpu"), folder, 1)
    with pytest.raises(ConfigError, match=r"gptq needs .* of 4 matrices"):
        second_moments(blueprint, TEXTS, frozenset(NAMES))
