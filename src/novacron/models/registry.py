"""From the architecture named in a config.json to the family that reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from novacron.errors import UnsupportedModel
from novacron.models.decoder_config import DecoderConfig
from novacron.models.families.gemma2 import config as gemma2
from novacron.models.families.gemma3 import config as gemma3
from novacron.models.families.gemma3 import weights as gemma3_weights
from novacron.models.families.llama import config as llama
from novacron.models.families.mistral import config as mistral
from novacron.models.families.mixtral import config as mixtral
from novacron.models.families.mixtral import weights as mixtral_weights
from novacron.models.families.phi3 import config as phi3
from novacron.models.families.phi3 import weights as phi3_weights
from novacron.models.families.qwen2 import config as qwen2
from novacron.models.families.qwen2_moe import config as qwen2_moe
from novacron.models.families.qwen3 import config as qwen3
from novacron.models.families.qwen3_moe import config as qwen3_moe
from novacron.models.hf_config import HFConfig
from novacron.models.weight_slots import WeightMap, same_names


@dataclass(frozen=True)
class Family:
    """How to read the checkpoints of one architecture.

    Tensors whose names start with one of `ignored_prefixes` belong to parts we do not run.
    """

    read_config: Callable[[HFConfig], DecoderConfig]
    source_of: WeightMap = same_names
    ignored_prefixes: tuple[str, ...] = ()


FAMILIES: Mapping[str, Family] = {
    "Gemma2ForCausalLM": Family(gemma2.read_config),
    "Gemma3ForCausalLM": Family(gemma3.read_config),
    "Gemma3ForConditionalGeneration": Family(
        gemma3.read_multimodal_config,
        gemma3_weights.multimodal_source,
        gemma3_weights.IGNORED_PREFIXES,
    ),
    "LlamaForCausalLM": Family(llama.read_config),
    "MistralForCausalLM": Family(mistral.read_config),
    "MixtralForCausalLM": Family(mixtral.read_config, mixtral_weights.source_of),
    "Phi3ForCausalLM": Family(phi3.read_config, phi3_weights.source_of),
    "Qwen2ForCausalLM": Family(qwen2.read_config),
    "Qwen2MoeForCausalLM": Family(qwen2_moe.read_config),
    "Qwen3ForCausalLM": Family(qwen3.read_config),
    "Qwen3MoeForCausalLM": Family(qwen3_moe.read_config),
}


def find_family(hf: HFConfig) -> tuple[str, Family]:
    """The architecture that a config.json names, and its family. Raises ModelLoadError."""
    architectures = hf.texts("architectures")
    if hf.flag("is_encoder_decoder", False):
        raise UnsupportedModel(
            str(
                hf.error(
                    f"{_listed(architectures)} is an encoder-decoder model; only decoder-only "
                    "models are supported"
                )
            )
        )
    if not architectures:
        raise hf.error("'architectures' is missing, so the kind of model is not known")
    for name in architectures:
        if name in FAMILIES:
            return name, FAMILIES[name]
    raise UnsupportedModel(
        str(
            hf.error(
                f"the architecture {_listed(architectures)} is not supported. "
                f"Supported: {', '.join(sorted(FAMILIES))}"
            )
        )
    )


def _listed(architectures: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in architectures) or "the model"
