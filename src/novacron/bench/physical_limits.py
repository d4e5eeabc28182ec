"""How far a speed is from what the machine could do: decoding must read every weight once a step.

Model bandwidth utilisation (MBU) is the share of the measured read bandwidth that decoding uses.
Source: the term is from Databricks, "LLM Inference Performance Engineering" (2023).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BYTES_PER_NUMBER = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ModelTraffic:
    """Bytes that one decode step reads."""

    weight_bytes: int
    kv_bytes_per_token: int

    def step_bytes(self, num_sequences: int, context_tokens: float) -> float:
        """For a batch whose sequences hold `context_tokens` each, on average."""
        return self.weight_bytes + num_sequences * context_tokens * self.kv_bytes_per_token

    def utilisation(
        self, step_s: float, bandwidth_bytes_per_s: float, *, num_sequences: int, context: float
    ) -> dict[str, float]:
        """What is read, how fast, and what share of the machine's bandwidth that is."""
        step_bytes = self.step_bytes(num_sequences, context)
        return {
            "weight_bytes": self.weight_bytes,
            "kv_bytes_per_token": self.kv_bytes_per_token,
            "bytes_per_step": round(step_bytes),
            "bytes_per_output_token": round(step_bytes / num_sequences),
            "read_bandwidth_gb_per_s": round(bandwidth_bytes_per_s / 1e9, 1),
            "least_step_ms": round(step_bytes / bandwidth_bytes_per_s * 1000, 3),
            "mbu": round(step_bytes / step_s / bandwidth_bytes_per_s, 4),
        }


def model_traffic(folder: Path) -> ModelTraffic | None:
    """From a checkpoint's own files, at the checkpoint's precision; None if they do not tell."""
    files = list(folder.glob("*.safetensors"))
    try:
        config = json.loads((folder / "config.json").read_text())
        kv_bytes = _kv_bytes_per_token(config)
    except (OSError, ValueError, KeyError):
        return None
    weight_bytes = sum(file.stat().st_size for file in files)
    return ModelTraffic(weight_bytes, kv_bytes) if weight_bytes else None


def _kv_bytes_per_token(config: dict[str, Any]) -> int:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    numbers = 2 * config["num_hidden_layers"] * config.get("num_key_value_heads", heads)
    return int(numbers * head_dim * _BYTES_PER_NUMBER.get(dtype, 4))
