"""The metadata of a GGUF model that describe its architecture, typed and under short names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from novacron.errors import ModelLoadError, UnsupportedModel
from novacron.models.gguf_model import GGUFModel
from novacron.models.gguf_names import MIXTRAL_EXPERTS, USUAL_EXPERTS, ExpertNames
from novacron.models.hf_config import HFConfig


@dataclass(frozen=True)
class _Architecture:
    """`has_pairs`: rows of queries and keys that turn together lie side by side in the file.
    `with_experts` is what Hugging Face calls it where it has experts; empty: that cannot be."""

    hugging_face_name: str
    has_pairs: bool
    with_experts: str = ""
    experts: ExpertNames = USUAL_EXPERTS


_ARCHITECTURES = {
    "llama": _Architecture("LlamaForCausalLM", True, "MixtralForCausalLM", experts=MIXTRAL_EXPERTS),
    "qwen2": _Architecture("Qwen2ForCausalLM", has_pairs=False),
    "qwen3": _Architecture("Qwen3ForCausalLM", has_pairs=False),
    "qwen2moe": _Architecture("", False, "Qwen2MoeForCausalLM"),
    "qwen3moe": _Architecture("", False, "Qwen3MoeForCausalLM"),
}


def paired_head_dim(file: GGUFModel) -> int | None:
    """The size of the heads whose rows lie in pairs that turn together; None if none do."""
    metadata = GGUFMetadata(file)
    return metadata.head_dim() if metadata.architecture.has_pairs else None


def expert_names(file: GGUFModel) -> ExpertNames:
    """What its family calls its experts, if it has any."""
    return GGUFMetadata(file).architecture.experts


class GGUFMetadata:
    """Typed reading of the keys that begin with the name of the architecture.

    Raises ModelLoadError, and UnsupportedModel for an architecture that is not known here."""

    def __init__(self, file: GGUFModel) -> None:
        self._values = HFConfig(file.metadata, str(file.path))
        self.error: Callable[[str], ModelLoadError] = self._values.error
        self.name = self._values.text("general.architecture")
        if self.name not in _ARCHITECTURES:
            raise UnsupportedModel(
                f"{file.path}: the architecture '{self.name}' is not supported in a GGUF file. "
                f"Supported: {', '.join(_ARCHITECTURES)}. Of others, take the Hugging Face folder."
            )
        self.architecture = _ARCHITECTURES[self.name]
        self.num_experts = self._values.integer(self._full("expert_count"), 0)

    @property
    def hugging_face_name(self) -> str:
        """That of the architecture, with experts or without."""
        found = self.architecture
        name = found.with_experts if self.num_experts else found.hugging_face_name
        if not name:
            has = f"{self.num_experts} experts" if self.num_experts else "no experts"
            raise self.error(f"a model of the architecture '{self.name}' with {has} is not known")
        return name

    def has(self, key: str) -> bool:
        return self._values.has(self._full(key))

    def size(self, key: str, default: int | None = None) -> int:
        return self._values.size(self._full(key), default)

    def number(self, key: str, default: float | None = None) -> float:
        """The shortest decimal number that the file's float32 can have been written from."""
        value = self._values.number(self._full(key), default)
        with np.errstate(over="ignore"):
            rounded = np.float32(value)
        if not np.isfinite(rounded):
            raise self.error(f"'{self._full(key)}' is {value}, which is no usable number")
        return float(str(rounded))

    def flag(self, key: str, default: bool) -> bool:
        return self._values.flag(self._full(key), default)

    def text(self, key: str, default: str) -> str:
        return self._values.text(self._full(key), default)

    def head_dim(self) -> int:
        """Of queries, keys and values alike, all of whose dimensions turn, in pairs."""
        heads = self.size("attention.head_count")
        head_dim = self.size("attention.key_length", self.size("embedding_length") // heads)
        if head_dim % 2:
            raise self.error(f"its heads have {head_dim} dimensions, which make no pairs")
        for key in ("attention.value_length", "rope.dimension_count"):
            if self.size(key, head_dim) != head_dim:
                raise self.error(
                    f"'{self._full(key)}' is {self.size(key)} where heads have {head_dim} "
                    "dimensions, which is not supported"
                )
        return head_dim

    def refuse(self, key: str, *harmless: float) -> None:
        if self.has(key) and self.number(key) not in harmless:
            raise self.error(f"'{self._full(key)}' is {self.number(key)}, which is not supported")

    def _full(self, key: str) -> str:
        return f"{self.name}.{key}"
