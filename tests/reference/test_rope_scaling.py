"""Every kind of rope scaling, in the layout of transformers 5 and in the older one."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from novacron.testing.reference import Judge, load_decoder, logits_in_chunks
from novacron.testing.tiny_models import VOCAB_SIZE

SHORT = [1.0, 1.1, 1.3, 1.2]
LONG = [1.5, 2.0, 4.0, 3.5]
PROMPT = random.Random(1).choices(range(5, VOCAB_SIZE), k=100)


def check(folder: Path, judge: Judge, device: torch.device, max_model_len: int = 512) -> None:
    prompt = PROMPT[:max_model_len]
    decoder = load_decoder(folder, device, dtype=torch.float32)
    found = logits_in_chunks(decoder, prompt, [len(prompt) - 5, 5], max_model_len=max_model_len)
    torch.testing.assert_close(found, judge.logits(prompt), atol=1e-4, rtol=0)


SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 2.5},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "yarn_mscale": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "mscale": 0.7,
        "mscale_all_dim": 0.5,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "truncate": False,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}


@pytest.mark.parametrize("kind", SCALINGS)
def test_both_layouts(
    kind: str,
    checkpoint: Callable[..., Path],
    judge: Callable[[Path], Judge],
    device: torch.device,
    tmp_path: Path,
) -> None:
    parameters = {"rope_theta": 5000.0, **SCALINGS[kind]}
    folder = checkpoint("llama", rope_parameters=parameters)
    check(folder, judge(folder), device)

    old = shutil.copytree(folder, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    del config["rope_parameters"]
    config["torch_dtype"] = config.pop("dtype")
    config["rope_theta"] = parameters.pop("rope_theta")
    parameters["type"] = parameters.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else parameters
    (old / "config.json").write_text(json.dumps(config))
    check(old, judge(folder), device)


def test_dynamic(
    checkpoint: Callable[..., Path], judge: Callable[[Path], Judge], device: torch.device
) -> None:
    """The base fits the longest context, where transformers takes the longest prompt so far."""
    folder = checkpoint(
        "llama",
        rope_parameters={"rope_type": "dynamic", "rope_theta": 5000.0, "factor": 2.0},
        max_position_embeddings=64,
    )
    check(folder, judge(folder), device, max_model_len=64)
    check(folder, judge(folder), device, max_model_len=len(PROMPT))


@pytest.mark.parametrize("partial", [1.0, 0.5])
@pytest.mark.parametrize("max_model_len", [64, 128], ids=["short", "long"])
def test_longrope(
    partial: float,
    max_model_len: int,
    checkpoint: Callable[..., Path],
    judge: Callable[[Path], Judge],
    device: torch.device,
) -> None:
    """Short factors up to the original context, long ones in a longer one."""
    count = int(len(SHORT) * partial)
    folder = checkpoint(
        "phi3",
        sliding_window=None,
        max_position_embeddings=128,
        original_max_position_embeddings=64,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": partial,
            "short_factor": SHORT[:count],
            "long_factor": LONG[:count],
        },
    )
    check(folder, judge(folder), device, max_model_len=max_model_len)


def test_gemma3_scales_only_full_layers(
    checkpoint: Callable[..., Path],
    judge: Callable[[Path], Judge],
    device: torch.device,
    tmp_path: Path,
) -> None:
    folder = checkpoint(
        "gemma3",
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    )
    check(folder, judge(folder), device)

    old = shutil.copytree(folder, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    for key in ("rope_parameters", "layer_types", "_sliding_window_pattern"):
        del config[key]
    config |= {
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 3,
    }
    (old / "config.json").write_text(json.dumps(config))
    check(old, judge(folder), device)
