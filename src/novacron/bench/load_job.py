"""What crosses between the bench and loaded_model: a model to load, and what its loading took.

Each as a line of JSON: a LoadJob in; a Load out, or Refused.
"""

from __future__ import annotations

import msgspec

from novacron.bench.forced_job import Refused
from novacron.config.model import ModelConfig


class LoadJob(msgspec.Struct, frozen=True):
    model: ModelConfig
    model_path: str


class Load(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Resident memory, files that are mapped included, beyond what the process had before."""

    precision: str
    weight_bytes: int
    largest_file_bytes: int
    peak_bytes: int
    left_bytes: int
    seconds: float


LoadNews = Load | Refused
