"""Where GGUF files keep the tensors of Hugging Face checkpoints.

A tensor there is one here, but for experts: theirs lie in one tensor for each kind of matrix, with
the expert as first dimension. Older files of Mixtral have a tensor for each expert.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from novacron.models.gguf_file import TensorInfo

_OF_MODEL = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_OF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_ROUTER, _SHARED_GATE = "ffn_gate_inp", "ffn_gate_inp_shexp"
_EXPERTS = "_exps"
_MATRICES = ("ffn_gate", "ffn_up", "ffn_down")


@dataclass(frozen=True)
class ExpertNames:
    """What a family calls the experts of a layer, their router, and each expert's matrices."""

    block: str
    gate: str
    up: str
    down: str

    def matrix(self, part: str, expert: int) -> str:
        """`part` is one of _MATRICES."""
        name = (self.gate, self.up, self.down)[_MATRICES.index(part)]
        return f"{self.block}.experts.{expert}.{name}"


USUAL_EXPERTS = ExpertNames("mlp", "gate_proj", "up_proj", "down_proj")
MIXTRAL_EXPERTS = ExpertNames("block_sparse_moe", "w1", "w3", "w2")


@dataclass(frozen=True)
class Place:
    """A tensor of the file; of one with experts, an entry of its first dimension. `shape` is that
    of what it is in a Hugging Face checkpoint."""

    tensor: str
    shape: tuple[int, ...]
    expert: int | None = None


def hugging_face_names(
    tensors: Mapping[str, TensorInfo], experts: ExpertNames = USUAL_EXPERTS
) -> dict[str, Place]:
    """From Hugging Face's names to places in the file, of all of `tensors`. Those that are not
    known here keep their names, so that loading refuses them by name."""
    return dict(entry for info in tensors.values() for entry in _entries(info, experts))


def _entries(info: TensorInfo, experts: ExpertNames) -> Iterator[tuple[str, Place]]:
    match info.name.split("."):
        case ["blk", layer, part, "weight"] if _is_of_experts(part) and len(info.shape) == 3:
            for expert in range(info.shape[0]):
                name = experts.matrix(part.removesuffix(_EXPERTS), expert)
                full = f"model.layers.{layer}.{name}.weight"
                yield full, Place(info.name, info.shape[1:], expert)
        case ["blk", layer, part, expert, kind] if part in _MATRICES and expert.isdecimal():
            name = experts.matrix(part, int(expert))
            yield f"model.layers.{layer}.{name}.{kind}", Place(info.name, info.shape)
        case ["blk", layer, part, kind] if part == _ROUTER:
            name = f"model.layers.{layer}.{experts.block}.gate.{kind}"
            yield name, Place(info.name, info.shape)
        case ["blk", layer, part, kind] if part in _OF_LAYER:
            # One row, which files may have without saying so.
            shape = (1, *info.shape[-1:]) if part == _SHARED_GATE else info.shape
            yield f"model.layers.{layer}.{_OF_LAYER[part]}.{kind}", Place(info.name, shape)
        case [part, kind] if part in _OF_MODEL:
            yield f"{_OF_MODEL[part]}.{kind}", Place(info.name, info.shape)
        case _:
            yield info.name, Place(info.name, info.shape)


def _is_of_experts(part: str) -> bool:
    return part.endswith(_EXPERTS) and part.removesuffix(_EXPERTS) in _MATRICES
