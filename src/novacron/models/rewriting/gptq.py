"""Rounding that takes what it gets wrong back where it can: GPTQ (Frantar et al., 2210.17323).

To nearest, each weight is rounded for itself. What matters is the product with the inputs that
come: errors d of a row cost d H d^T, where H are the inputs' second moments. So inputs go one after
the other, and what rounding one has cost is taken off the weights of those that are still to come,
by the inverse of H. Its Cholesky factor has all that is needed for it (section 3.3 of the paper).

Shapes: O outputs, I inputs, G groups, S inputs in a group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from novacron.kernels.linear import Quantization, Rounded
from novacron.kernels.quantized_linear import round_weights

_DAMPING = 0.01  # of the mean second moment: inputs that hardly vary would make weights explode


def round_by_second_moments(
    weight_OI: Tensor, quantization: Quantization, moments_II: Tensor
) -> Rounded:
    """The scale of a group is chosen when its turn comes, by the rule of `round_weights`, for the
    weights as they then are. Inputs must be whole groups."""
    size = quantization.group_size
    low, high = (-127, 127) if quantization.bits == 8 else (-8, 7)
    weights_OI = weight_OI.float().clone()
    factor_II = _inverse_factor(moments_II)
    values: list[Tensor] = []
    scales: list[Tensor] = []
    for first in range(0, weights_OI.shape[1], size):
        group = slice(first, first + size)
        weights_OS, factor_SS = weights_OI[:, group], factor_II[group, group]
        _, scale_O1 = round_weights(weights_OS, quantization)
        exact_O = scale_O1.float().squeeze(1)
        divisor_O = torch.where(exact_O == 0, 1.0, exact_O)
        values_OS = torch.zeros_like(weights_OS)
        errors_OS = torch.zeros_like(weights_OS)
        for i in range(size):
            column_O = weights_OS[:, i]
            values_OS[:, i] = (column_O / divisor_O).round_().clamp_(low, high)
            errors_OS[:, i] = (column_O - values_OS[:, i] * exact_O) / factor_SS[i, i]
            weights_OS[:, i + 1 :] -= torch.outer(errors_OS[:, i], factor_SS[i, i + 1 :])
        weights_OI[:, group.stop :] -= errors_OS @ factor_II[group, group.stop :]
        values.append(values_OS.to(torch.int8))
        scales.append(scale_O1)
    return Rounded(torch.stack(values, 1), torch.cat(scales, 1))


def _inverse_factor(moments_II: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse, in float32. An input that was always zero counts as
    one that has nothing to do with others."""
    moments_II = moments_II.double().clone()
    diagonal_I = moments_II.diagonal()
    diagonal_I[diagonal_I == 0] = 1.0
    diagonal_I += _DAMPING * diagonal_I.mean()
    inverse_II = torch.cholesky_inverse(torch.linalg.cholesky(moments_II))
    factor_II: Tensor = torch.linalg.cholesky(inverse_II, upper=True)
    return factor_II.float()
