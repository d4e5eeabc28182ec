"""The dispatch table: one function per operation, chosen once per device, passed to the layers.

A faster implementation replaces fields of the table (dataclasses.replace) and must agree with the
torch reference on the tests in tests/unit/kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from novacron.kernels import torch_attention, torch_ops
from novacron.kernels.experts import MakeExperts, make_torch_experts
from novacron.kernels.linear import Level, Linear, Quantization, Rounded, Table, TorchLinear
from novacron.kernels.metadata import AttentionMetadata, KVLayer
from novacron.kernels.ranks import RankKernels
from novacron.kernels.recorded import Record, refuse_to_record
from novacron.kernels.torch_linear import (
    torch_linear,
    torch_linear_of_rounded,
    torch_weight_bytes,
)
from novacron.kernels.torch_ops import Activation


class RMSNormOperation(Protocol):
    def __call__(
        self, x: Tensor, weight: Tensor, eps: float, add_to: Tensor | None = None
    ) -> Tensor: ...


class Rotation(Protocol):
    """Turns queries and keys by the positions of the step it was planned for."""

    def __call__(self, x_TNH: Tensor) -> Tensor: ...


class Draw(NamedTuple):
    """How a token is chosen from one row of logits: see SamplingParams. `seed`, modulo 2**64, and
    `position` give the random number."""

    temperature: float
    top_p: float
    min_p: float
    top_k: int
    seed: int
    position: int


class Choose(Protocol):
    """Chooses a token of each row of logits (float32), by the rules of runner/sampler.py. Returns
    the tokens, and each row's largest logit; where that is not finite, the token means nothing."""

    def __call__(
        self, logits_RV: Tensor, draws: Sequence[Draw]
    ) -> tuple[list[int], list[float]]: ...


class AttentionPlan(Protocol):
    """All that one step's attention needs for one window size, prepared once for all layers."""

    def attend(
        self,
        q_TNH: Tensor,
        k_TKH: Tensor,
        v_TKH: Tensor,
        cache: KVLayer,
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        """Store the step's keys and values in `cache`, then attend; [tokens, heads * head dim]."""
        ...


@dataclass(frozen=True)
class Kernels:
    """The operations that layers are made of.

    `linear` and `lookup` make something of a weight, which they may keep; `linear_of_packed` makes
    what `linear` would, given the bytes that it made before, and `linear_of_rounded`, given what
    the weight is rounded to: neither looks into the weight, which gives shape and type.
    `weight_bytes` tells what it takes for a shape and a precision. `plan_rotation` takes the
    positions of the step's tokens, and cosine and sine of the angles at all positions, [P, F].
    `scale` and `softcap` change a tensor in place. `choose` None: the sampler does it with torch.
    `record` is explained in recorded.py. `ranks` None: those of torch have to do.
    """

    name: str
    has_threads: bool  # of its own, beside those of torch
    kv_layout: str  # names the order of bytes in a block of the KV cache; changes with it
    key_cell_bytes: int | None  # of keys in floats that lie together for a token; None: all
    linear: Callable[[Tensor, Quantization | None], Linear]
    linear_of_rounded: Callable[[Tensor, Quantization, Rounded], Linear]
    linear_of_packed: Callable[[Tensor, Quantization | None, Tensor], Linear] | None
    weight_layout: str  # names the order of bytes of a Packed linear; changes with it
    rounded_levels: frozenset[Level]  # that weights can be held in, besides the inputs' own type
    weight_bytes: Callable[[tuple[int, int], torch.dtype, Quantization | None], int]
    lookup: Callable[[Tensor], Table]
    rms_norm: RMSNormOperation
    plan_rotation: Callable[[Tensor, Tensor, Tensor], Rotation]
    activate_and_mul: dict[Activation, Callable[[Tensor], Tensor]]
    experts: MakeExperts
    scale: Callable[[Tensor, float], Tensor]
    softcap: Callable[[Tensor, float], Tensor]
    plan_attention: Callable[[AttentionMetadata, int | None], AttentionPlan]
    choose: Choose | None
    record: Record
    ranks: RankKernels | None


TORCH_KERNELS = Kernels(
    name="torch",
    has_threads=False,
    kv_layout="torch-1",
    key_cell_bytes=None,
    linear=torch_linear,
    linear_of_rounded=torch_linear_of_rounded,
    linear_of_packed=None,
    weight_layout="torch-1",
    rounded_levels=frozenset({"fp8", "int8", "int4"}),
    weight_bytes=torch_weight_bytes,
    lookup=TorchLinear,
    rms_norm=torch_ops.rms_norm,
    plan_rotation=torch_ops.plan_rotation,
    activate_and_mul=torch_ops.ACTIVATE_AND_MUL,
    experts=make_torch_experts,
    scale=torch_ops.scale,
    softcap=torch_ops.softcap,
    plan_attention=torch_attention.plan_attention,
    choose=None,
    record=refuse_to_record,
    ranks=None,
)
