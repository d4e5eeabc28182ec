"""What a comparison of two variants is judged by. Of rows, so that a result that was measured
without goals can be judged by what stands in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from novacron.bench.result import Goal, Row


def quality_goals(
    rows: Sequence[Row], *, least_quality: float, beats_reference: bool
) -> Iterator[Goal]:
    """Ends of the 95 % intervals are judged, and not what lies in their middle: a goal is met where
    the documents that were drawn cannot be the reason. `least_quality` 0: none is set."""
    if least_quality:
        yield Goal(
            name="quality, low end of its interval",
            limit=least_quality,
            better="higher",
            value=_of_all_tokens(rows, "quality", "least"),
        )
    if beats_reference:
        yield Goal(
            name="NLL above that of the reference, high end of its interval",
            limit=0.0,
            better="lower",
            value=_of_all_tokens(rows, "NLL (mnat)", "most"),
            unit="mnat",
        )


def _of_all_tokens(rows: Sequence[Row], measure: str, metric: str) -> float:
    labels = {"measure": measure, "of": "all"}
    [found] = [row for row in rows if row.labels == labels]
    return found.metrics[metric].summary.mean
