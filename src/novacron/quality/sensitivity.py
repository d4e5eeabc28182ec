"""What each part of a model loses at each level, and the levels that lose least within a budget.

Losses of parts are taken to add up: each is measured with all other parts unrounded. The divergence
of the variant's distributions from the reference's (KL) is what adds up best: it is smooth, never
negative, zero where nothing is rounded, and needs no right answers. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from novacron.quality.byte_budget import Option, allot
from novacron.quality.document_losses import DocumentLosses
from novacron.quality.estimates import Estimate, TokenMeans


class LevelLoss(msgspec.Struct, frozen=True, kw_only=True):
    """One part at one level, all others as the reference has them. Nats per token."""

    num_bytes: int
    kl: Estimate
    nll_difference: Estimate


class PartSensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """`patterns` are those of overrides; `plain_bytes` what the part takes if it is not rounded.
    `losses` are by precision: a level, or a level with the size of its groups ("int4/64")."""

    name: str
    patterns: tuple[str, ...]
    plain_bytes: int
    losses: dict[str, LevelLoss]


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model. `other_bytes` is what takes part in no choice: norms, biases, routers."""

    model_version: str
    dtype: str
    group_size: int | None  # None: the usual
    corpus: str
    num_documents: int
    num_tokens: int
    other_bytes: int
    parts: tuple[PartSensitivity, ...]


class PrecisionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A precision for each part, None where it is not rounded. `weight_bytes` is of the model.

    `kl` is the sum of what was measured part by part; no plan in the budget has a smaller one than
    `least_kl`.
    """

    budget_bytes: int
    weight_bytes: int
    kl: float
    least_kl: float
    is_exact: bool
    levels: tuple[str | None, ...]

    def overrides(self, parts: Sequence[PartSensitivity]) -> tuple[str, ...]:
        """As `quantization_layers` takes them, upon no quantization of the rest."""
        return tuple(
            f"{pattern}={level}"
            for part, level in zip(parts, self.levels, strict=True)
            if level is not None
            for pattern in part.patterns
        )


def level_losses(
    measured: DocumentLosses, num_bytes: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, LevelLoss]]:
    """By part and precision; `num_bytes` is what each takes."""
    token_mean = TokenMeans(measured.num_tokens_D)
    return {
        part: {
            level: LevelLoss(
                num_bytes=num_bytes[part][level],
                kl=token_mean(loss.kl_D),
                nll_difference=token_mean(loss.nll_difference_D),
            )
            for level, loss in levels.items()
        }
        for part, levels in measured.losses.items()
    }


def plan_precision(sensitivity: Sensitivity, budget_bytes: int) -> PrecisionPlan:
    """The plan whose losses add up to the least. Raises ConfigError if nothing fits."""
    choices = [_options(part) for part in sensitivity.parts]
    found = allot(
        [list(options.values()) for options in choices],
        budget_bytes,
        beside_bytes=sensitivity.other_bytes,
    )
    return PrecisionPlan(
        budget_bytes=budget_bytes,
        weight_bytes=found.num_bytes,
        kl=found.loss,
        least_kl=found.lower_bound,
        is_exact=found.is_exact,
        levels=tuple(
            list(options)[choice] for options, choice in zip(choices, found.choices, strict=True)
        ),
    )


def expected_losses(
    sensitivity: Sensitivity, held: Mapping[str, Sequence[str]]
) -> dict[str, float | None]:
    """KL by part, in nats per token, of a model whose parts are held so: `held` has every name that
    the precision of a part goes by (int8, int8/128), none for one that is not rounded. None: it was
    not measured at that precision."""
    return {
        part.name: _expected(part, held[part.name]) if held.get(part.name) else 0.0
        for part in sensitivity.parts
    }


def _expected(part: PartSensitivity, names: Sequence[str]) -> float | None:
    return next((part.losses[name].kl.value for name in names if name in part.losses), None)


def _options(part: PartSensitivity) -> dict[str | None, Option]:
    plain: dict[str | None, Option] = {None: Option(part.plain_bytes, 0.0)}
    return plain | {
        level: Option(loss.num_bytes, loss.kl.value) for level, loss in part.losses.items()
    }
