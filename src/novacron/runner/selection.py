"""The largest values of rows, without the ids they belong to.

Called by the sampler and by logprobs. Values alone, because no library promises an order among
equal values, and the results here must not depend on one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def largest_values(values_GV: Tensor, count: int) -> Tensor:
    """The `count` largest values of each row, largest first."""
    size = values_GV.shape[1]
    assert 0 <= count <= size
    if count == 0:
        return values_GV[:, :0]
    if values_GV.device.type != "cpu":
        return values_GV.topk(count, dim=-1).values
    # NumPy's vectorised sort is 5 to 30 times as fast here as torch's on a CPU.
    array_GV = values_GV.numpy()
    if count < size:
        array_GV = np.partition(array_GV, size - count, axis=-1)[:, size - count :]
    return torch.from_numpy(np.sort(array_GV, axis=-1)[:, ::-1].copy())
