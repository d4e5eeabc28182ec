"""The rows of a comparison of two variants: what each gives, and the difference with its interval.

`compared` is the measure itself where it takes both variants; a difference (variant - reference)
where each has a value of its own; a ratio (variant / reference) for speed and bytes. `least` and
`most` are the ends of its 95 % interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from novacron.bench.forced_job import Loaded, VariantFacts
from novacron.bench.result import Better, Column, Label, Metric, Row, metric, row
from novacron.bench.statistics import bootstrap_interval, paired_share_interval
from novacron.quality.document import DocumentScores
from novacron.quality.estimates import (
    Estimate,
    Quality,
    estimate_quality,
    quality_by_context,
)

COLUMNS = tuple(
    Column(name, "mean", 5) for name in ("reference", "variant", "compared", "least", "most")
)
_CONTEXTS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_DIGITS = 5
_MNAT = 1000  # thousandths of a nat: what good variants lose


def quality_rows(documents: Sequence[DocumentScores]) -> Iterator[Row]:
    """Of all judged tokens, then by how many tokens stand before them."""
    yield from _rows_of("all", estimate_quality(documents), is_whole=True)
    for most, found in quality_by_context(documents, _CONTEXTS).items():
        yield from _rows_of(f"context <= {most}", found, is_whole=False)


def task_rows(
    reference: Mapping[str, Sequence[bool]], variant: Mapping[str, Sequence[bool]]
) -> Iterator[Row]:
    """Of all questions, then of each task."""
    everything = ([v for task in one.values() for v in task] for one in (reference, variant))
    yield _task_row("all tasks", *everything)
    for task, verdicts in reference.items():
        yield _task_row(task, verdicts, variant[task])


def speed_row(reference: Sequence[float], variant: Sequence[float], num_streams: int) -> Row:
    """Tokens per second of decoding, by rounds that were taken in turns."""
    ratios = [second / first for first, second in zip(reference, variant, strict=True)]
    interval = bootstrap_interval(ratios)
    return row(
        {"measure": "decode speed", "of": f"{num_streams} streams"},
        reference=metric("", "higher", reference),
        variant=metric("", "higher", variant),
        compared=metric("", "higher", ratios),
        least=_one("higher", interval.low),
        most=_one("higher", interval.high),
    )


def size_rows(loaded: Loaded) -> Iterator[Row]:
    def sizes(what: str, of: str, size: str) -> Row:
        first, second = (float(getattr(facts, size)) for facts in _both(loaded))
        return row(
            {"measure": what, "of": of},
            reference=_one("lower", first),
            variant=_one("lower", second),
            compared=_one("lower", second / first),
        )

    yield sizes("bytes", "weights", "weight_bytes")
    yield sizes("bytes", "KV cache, a token", "kv_bytes_per_token")


def _both(loaded: Loaded) -> tuple[VariantFacts, VariantFacts]:
    return loaded.reference, loaded.variant


def _rows_of(of: str, found: Quality, *, is_whole: bool) -> Iterator[Row]:
    yield _estimate_row("quality", of, "higher", found.quality)
    yield _estimate_row("top-1 agreement", of, "higher", found.top1_agreement)
    yield _estimate_row("KL (mnat)", of, "lower", _times(found.kl, _MNAT))
    if not is_whole:
        return
    reference_nll = found.reference_nll.value * _MNAT
    difference = _times(found.nll_difference, _MNAT)
    yield _estimate_row(
        "NLL (mnat)",
        of,
        "lower",
        difference,
        reference=_one("lower", reference_nll),
        variant=_one("lower", reference_nll + difference.value),
    )
    yield _estimate_row(
        "largest logit error", "a document (mean)", "lower", found.largest_logit_error
    )
    yield row(
        {"measure": "largest logit error", "of": of},
        compared=_one("lower", found.logit_error_of_all),
    )


def _task_row(task: str, reference: Sequence[bool], variant: Sequence[bool]) -> Row:
    pairs = list(zip(reference, variant, strict=True))
    lost, gained = (sum(pair == case for pair in pairs) for case in ((True, False), (False, True)))
    interval = paired_share_interval(lost, gained, len(pairs))
    difference = (gained - lost) / len(pairs)
    return _estimate_row(
        "accuracy",
        task,
        "higher",
        Estimate(value=difference, low=interval.low, high=interval.high),
        reference=_verdicts(reference),
        variant=_verdicts(variant),
    )


def _verdicts(right: Sequence[bool]) -> Metric:
    return metric("", "higher", list(map(float, right)), keep=len(right))


def _estimate_row(
    measure: Label, of: Label, better: Better, found: Estimate, **values: Metric
) -> Row:
    return row(
        {"measure": measure, "of": of},
        **values,
        compared=_one(better, found.value),
        least=_one(better, found.low),
        most=_one(better, found.high),
    )


def _one(better: Better, value: float) -> Metric:
    return metric("", better, [value], digits=_DIGITS)


def _times(one: Estimate, factor: float) -> Estimate:
    return Estimate(value=one.value * factor, low=one.low * factor, high=one.high * factor)
