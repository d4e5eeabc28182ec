from __future__ import annotations

from dataclasses import replace

import torch

from novacron.kernels.table import TORCH_KERNELS, kernels_for


def test_every_device_has_kernels() -> None:
    for name in ("cpu", "cuda"):
        kernels = kernels_for(torch.device(name))
        assert set(kernels.activate_and_mul) == {"silu", "gelu_tanh", "gelu"}


def test_one_operation_can_be_replaced() -> None:
    faster = replace(TORCH_KERNELS, rms_norm=lambda x, weight, eps: x)
    assert faster.rms_norm is not TORCH_KERNELS.rms_norm
    assert faster.rotate is TORCH_KERNELS.rotate
