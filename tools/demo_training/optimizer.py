"""Muon for the matrices of the layers, AdamW for embeddings and norms.

Muon takes the momentum of a matrix and replaces it with the nearest orthogonal matrix, found by
a Newton-Schulz iteration. Matrices of one shape are stacked so that the iteration runs batched.

Source: the method of K. Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices [count, rows, columns] with all singular values moved close to one."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised; the step is scaled so that one rate suits every shape."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float, decay: float
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "decay": decay}
        super().__init__(list(parameters), defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                self._step_stack(group, parameters, max(1.0, shape[0] / shape[1]) ** 0.5)

    def _step_stack(
        self, group: dict[str, Any], parameters: list[nn.Parameter], scale: float
    ) -> None:
        looks_ahead = []
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            average = state["momentum"]
            average.lerp_(parameter.grad, 1 - group["momentum"])
            looks_ahead.append(parameter.grad.lerp(average, group["momentum"]))
        updates = orthogonalise(torch.stack(looks_ahead))
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["decay"])
            parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * scale)


def make_optimizers(
    model: nn.Module, muon_lr: float, adam_lr: float, decay: float
) -> tuple[Muon, torch.optim.AdamW]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = Muon(matrices, lr=muon_lr, momentum=0.95, decay=decay)
    adam = torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
    return muon, adam


def set_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set every rate to its initial value times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor
