from __future__ import annotations

import pytest
import torch

from novacron.kernels.linear import FLOAT8, Quantization
from novacron.kernels.native.library import NativeContext, NativeUnavailable
from novacron.kernels.native.linear import NativeLinear
from novacron.kernels.native.rounded_packing import pack_rounded
from novacron.kernels.torch_linear import round_in_parts, torch_linear

FORMS = [FLOAT8, *(Quantization(bits, size) for bits in (8, 4) for size in (32, 64, 128))]


@pytest.mark.parametrize("quantization", FORMS)
@pytest.mark.parametrize("shape", [(64, 128), (70, 256), (2200, 160), (1, 33), (200, 1000)])
def test_the_bytes_are_those_of_weights_rounded_natively(
    shape: tuple[int, int], quantization: Quantization
) -> None:
    """Past the last output, only what is multiplied counts: values that are zero."""
    try:
        context = NativeContext(1)
    except NativeUnavailable:
        pytest.skip("no native kernels")
    weight = torch.randn(shape, generator=torch.manual_seed(0)).bfloat16()
    rounded = round_in_parts(weight, quantization)
    natively = NativeLinear(context, weight, quantization)
    packed = pack_rounded(rounded, quantization)
    assert packed.shape == natively.packed.shape
    ours = NativeLinear(context, weight, quantization, packed=packed)
    x = torch.randn(3, shape[1], generator=torch.manual_seed(1)).bfloat16()
    assert torch.equal(ours(x), natively(x))
    ids = torch.arange(shape[0])
    assert torch.equal(ours.rows(ids), natively.rows(ids))
    assert torch.equal(ours.rows(ids), torch_linear(weight, quantization).rows(ids))
    if shape[0] % 64 == 0:
        assert torch.equal(packed, natively.packed)
