from __future__ import annotations

import logging

import pytest
import torch

from novacron.errors import ConfigError
from novacron.kernels import choice
from novacron.kernels.choice import choose_kernels
from novacron.kernels.native.library import NativeUnavailable
from novacron.kernels.table import TORCH_KERNELS

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_torch_where_it_is_asked_for_or_there_is_a_gpu() -> None:
    assert choose_kernels("torch", CPU, torch.float32, 1) is TORCH_KERNELS
    assert choose_kernels("auto", CUDA, torch.float32, 1) is TORCH_KERNELS
    with pytest.raises(ConfigError, match="the device is cuda"):
        choose_kernels("native", CUDA, torch.float32, 1)


def test_precision_without_native_kernels(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_kernels("auto", CPU, torch.float16, 1) is TORCH_KERNELS
    assert "no float16" in caplog.text
    with pytest.raises(ConfigError, match="Set kernels to auto or torch"):
        choose_kernels("native", CPU, torch.float16, 1)


def test_an_installation_without_them_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(num_threads: int) -> None:
        raise NativeUnavailable("there is no library")

    monkeypatch.setattr(choice, "NativeContext", missing)
    with caplog.at_level(logging.WARNING):
        assert choose_kernels("auto", CPU, torch.float32, 1) is TORCH_KERNELS
    assert "slower: there is no library." in caplog.text
