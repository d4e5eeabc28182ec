"""Weights stored in e4m3, as kernels take them: with a scale for each group of an output."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from novacron.kernels.linear import Rounded
from novacron.models.quantized.block_values import BlockValues
from novacron.models.quantized.stored_module import StoredModule

FP8 = "float8_e4m3fn"
_NAN = 0x7F  # without its sign


def rounded_to_float8(
    module: StoredModule, scales: BlockValues, first: int, last: int, group_size: int
) -> Rounded | None:
    """Rows [first, last) of a module's weight. None if a group would have several scales. Raises
    ModelLoadError if a number or a scale is not finite."""
    columns = scales.shape[1]
    width = scales.block[1]
    if width < columns and width % group_size != 0:
        return None
    codes_RC = module.read("weight")[first:last].contiguous().view(torch.uint8)
    if (codes_RC & _NAN == _NAN).any():
        raise module.error("weight", "holds NaN")
    values_RC = F.pad(codes_RC, (0, -columns % group_size)).view(torch.float8_e4m3fn)
    first_of_G = torch.arange(0, columns, group_size)
    scales_RG = scales.of_rows(first, last).float()[:, scales.group_of_column[first_of_G]]
    if not scales_RG.isfinite().all():
        raise module.error(scales.part, "holds NaN or infinite values")
    return Rounded(values_RC.view(len(codes_RC), -1, group_size), scales_RG)
