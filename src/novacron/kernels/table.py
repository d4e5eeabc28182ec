"""The dispatch table: one function per operation, chosen once per device, passed to the layers.

A faster implementation replaces fields of the table (dataclasses.replace) and must agree with the
torch reference on the tests in tests/unit/kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from novacron.kernels import torch_attention, torch_ops
from novacron.kernels.linear import Linear, TorchLinear
from novacron.kernels.metadata import AttentionMetadata, KVLayer

Activation = Literal["silu", "gelu_tanh", "gelu"]


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
    """The operations that layers are made of. `linear` makes one of a weight, which it may keep."""

    name: str
    has_threads: bool  # of its own, beside those of torch
    linear: Callable[[Tensor], Linear]
    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor]
    activate_and_mul: dict[Activation, Callable[[Tensor], Tensor]]
    plan_attention: Callable[[AttentionMetadata, int | None], AttentionPlan]


TORCH_KERNELS = Kernels(
    name="torch",
    has_threads=False,
    linear=TorchLinear,
    rms_norm=torch_ops.rms_norm,
    rotate=torch_ops.rotate,
    activate_and_mul={
        "silu": torch_ops.silu_and_mul,
        "gelu_tanh": torch_ops.gelu_tanh_and_mul,
        "gelu": torch_ops.gelu_and_mul,
    },
    plan_attention=torch_attention.plan_attention,
)
