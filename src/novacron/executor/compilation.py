"""Compiling what the decoder does to each token for itself, with torch.compile.

What is compiled is the feed-forward half of a layer with its norms: one function for all layers and
any number of tokens. Attention is not: it is different in every step. Nor are experts, which go by
what the router says. Who compiles is inductor, or a plug-in: a backend as torch.compile takes them,
found by its name among installed packages.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import torch

from novacron.errors import ConfigError
from novacron.models.decoder import Decoder
from novacron.models.decoder_layer import DecoderLayer
from novacron.models.layers.feed_forward import FeedForward

OFF, INDUCTOR = "off", "torch"
_GROUPS = ("novacron.backends", "torch_dynamo_backends")  # of entry points
_PACKAGES = {"openvino": "openvino", "tensorrt": "torch-tensorrt"}
_OTHER_NAMES = {"tensorrt": ("torch_tensorrt",)}
_TOKENS = (4, 1)  # any number of tokens, and one, which torch compiles for itself

Backend = str | Callable[..., Any]


def find_backend(name: str) -> Backend:
    """As torch.compile takes it. Raises ConfigError for one that is not installed."""
    if name == INDUCTOR:
        return "inductor"
    wanted = (name, *_OTHER_NAMES.get(name, ()))
    found = [one for group in _GROUPS for one in entry_points(group=group) if one.name in wanted]
    if found:
        backend: Backend = found[0].load()
        return backend
    package = _PACKAGES.get(name)
    remedy = f"pip install {package}" if package else "install the package that has it"
    raise ConfigError(
        f"compilation is '{name}', and no such plug-in is installed: {remedy}, or set compilation "
        f"to {INDUCTOR} or {OFF}. Known are {', '.join(_PACKAGES)}, and what a package names among "
        f"its entry points in {_GROUPS[0]}."
    )


def compile_decoder(decoder: Decoder, name: str) -> None:
    """Have it compute compiled code from now on, which is made here, so that no request waits for
    it. Raises ConfigError if that cannot be."""
    if decoder.kernels.name != "torch":
        raise ConfigError(
            f"compilation is '{name}', and {decoder.kernels.name} kernels compute, which are "
            "compiled already. Set kernels to torch, or compilation to off."
        )
    layers = [layer for layer in decoder.layers if isinstance(layer.feed_forward, FeedForward)]
    if not layers:
        raise ConfigError(
            f"compilation is '{name}', and all layers of this model have experts, which are not "
            "compiled. Set compilation to off."
        )
    device = decoder.device
    backend = find_backend(name)
    if name == INDUCTOR:
        _check_compiler(device)
    for layer in layers:
        # A function of its own for each layer would be compiled for each.
        layer.feed = torch.compile(  # type: ignore[method-assign]
            layer.feed, backend=backend, dynamic=True, fullgraph=True
        )
    _run_once(layers, decoder, device)


def _run_once(layers: list[DecoderLayer], decoder: Decoder, device: torch.device) -> None:
    try:
        with torch.inference_mode():
            for num_tokens in _TOKENS:
                shape = (num_tokens, decoder.config.hidden_size)
                for layer in layers:
                    layer.feed(torch.zeros(shape, dtype=decoder.dtype, device=device))
    except Exception as error:  # whatever a compiler raises
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError(
            f"The model could not be compiled: {type(error).__name__}: "
            f"{' '.join(lines[:2]) or 'no reason given'}. Set compilation to off."
        ) from error


def _check_compiler(device: torch.device) -> None:
    if device.type != "cpu":
        return
    compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
    if not any(one and shutil.which(one) for one in compilers):
        raise ConfigError(
            "compilation is 'torch', and there is no C++ compiler: install g++ or clang++, or name "
            "one in CXX."
        )
