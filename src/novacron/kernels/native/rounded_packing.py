"""Weights that are rounded already in the form that the native kernels multiply with.

The layout is that of csrc/packing.h. Whole numbers are rounded there, too, and packed in one go.

Shapes: O outputs, P panels of 64 of them, G groups, S inputs in a group.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from novacron.kernels.linear import Quantization, Rounded
from novacron.kernels.pages import empty_pages

_PANEL = 64
_CELL = 4  # inputs of an output that lie side by side
_ORDER_OF_FLOATS = [0, 2, 1, 3]  # in a cell: a half of a word has two neighbours
_PANELS_AT_ONCE = 16  # bounds the memory for those on their way


def pack_rounded(rounded: Rounded, quantization: Quantization) -> Tensor:
    """[bytes]"""
    values_OGS = rounded.values_OGS.view(torch.int8)
    outputs, groups, size = values_OGS.shape
    scale_bytes = rounded.scales_OG.element_size()
    panels = -(-outputs // _PANEL)
    group_bytes = _PANEL * (scale_bytes + size * quantization.bits // 8)
    packed = empty_pages((panels * groups * group_bytes,), torch.uint8)
    packed_PGB = packed.view(panels, groups, group_bytes)
    for first in range(0, panels, _PANELS_AT_ONCE):
        part = packed_PGB[first : first + _PANELS_AT_ONCE]
        rows = slice(first * _PANEL, (first + len(part)) * _PANEL)
        missing = max(0, rows.stop - outputs)
        some_OGS = F.pad(values_OGS[rows], (0, 0, 0, 0, 0, missing))
        scales_OG = F.pad(rounded.scales_OG[rows], (0, 0, 0, missing))
        scales_PGO = scales_OG.view(-1, _PANEL, groups).transpose(1, 2).contiguous()
        split = scale_bytes * _PANEL
        part[:, :, :split] = scales_PGO.view(torch.uint8)
        part[:, :, split:] = _cells(some_OGS, quantization).flatten(2)
    return packed


def _cells(values_OGS: Tensor, quantization: Quantization) -> Tensor:
    """[P, G, cells, 64, 4] bytes; those of whole numbers have no sign."""
    outputs, groups, _ = values_OGS.shape
    if quantization.is_float:
        octets = values_OGS.view(torch.uint8).view(outputs, groups, -1, _CELL)
        octets = octets[..., _ORDER_OF_FLOATS].flatten(2)
    elif quantization.bits == 8:
        octets = values_OGS.view(torch.uint8) ^ 0x80  # the same as + 128
    else:
        unsigned = (values_OGS + 8).view(torch.uint8).view(outputs, groups, -1, 2, _CELL)
        octets = unsigned[..., 0, :] | (unsigned[..., 1, :] << 4)
    return octets.reshape(-1, _PANEL, groups, octets[0, 0].numel() // _CELL, _CELL).permute(
        0, 2, 3, 1, 4
    )


def scales_in(packed: Tensor, shape: tuple[int, int], quantization: Quantization) -> Tensor:
    """The scales of what `pack_rounded` or the native kernels made of a weight of [O, I], where
    they lie: [P, G, 64]. What is past the last output has some, too."""
    outputs, inputs = shape
    groups = -(-inputs // quantization.group_size)
    packed_PGB = packed.view(-(-outputs // _PANEL), groups, -1)
    dtype = torch.float32 if quantization.is_float else torch.bfloat16
    return packed_PGB[:, :, : _PANEL * dtype.itemsize].view(dtype)
