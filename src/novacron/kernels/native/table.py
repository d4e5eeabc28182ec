"""The kernel table of the native library."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from novacron.kernels.linear import Quantization, Rounded
from novacron.kernels.native.attention import NativeAttentionPlan
from novacron.kernels.native.communicator import NativeRanks
from novacron.kernels.native.experts import NativeExperts
from novacron.kernels.native.library import NativeContext
from novacron.kernels.native.linear import NativeLinear, NativeTable, packed_bytes
from novacron.kernels.native.ops import (
    NativeGated,
    NativeRMSNorm,
    NativeRotation,
    native_scale,
    native_softcap,
)
from novacron.kernels.native.program import record
from novacron.kernels.native.rounded_packing import pack_rounded
from novacron.kernels.native.sampling import NativeChoose
from novacron.kernels.table import Kernels


def _linear_of_packed(
    context: NativeContext, weight: Tensor, quantization: Quantization | None, packed: Tensor
) -> NativeLinear:
    return NativeLinear(context, weight, quantization, packed=packed)


def _linear_of_rounded(
    context: NativeContext, weight: Tensor, quantization: Quantization, rounded: Rounded
) -> NativeLinear:
    return NativeLinear(context, weight, quantization, packed=pack_rounded(rounded, quantization))


def native_kernels(context: NativeContext) -> Kernels:
    return Kernels(
        name=f"native ({context.level}, {context.num_threads} threads)",
        has_threads=True,
        kv_layout="native-1",
        key_cell_bytes=4,
        linear=partial(NativeLinear, context),
        linear_of_rounded=partial(_linear_of_rounded, context),
        linear_of_packed=partial(_linear_of_packed, context),
        weight_layout="native-1",
        rounded_levels=frozenset({"fp8", "int8", "int4"}),
        weight_bytes=partial(packed_bytes, context),
        lookup=partial(NativeTable, context),
        rms_norm=NativeRMSNorm(context),
        plan_rotation=partial(NativeRotation, context),
        scale=native_scale(context),
        softcap=native_softcap(context),
        activate_and_mul={
            "silu": NativeGated(context, "silu"),
            "gelu_tanh": NativeGated(context, "gelu_tanh"),
            "gelu": NativeGated(context, "gelu"),
        },
        experts=partial(NativeExperts, context),
        plan_attention=partial(NativeAttentionPlan, context),
        choose=NativeChoose(context),
        record=partial(record, context),
        ranks=NativeRanks(context),
    )
