"""Which replica a call goes to: a pure decision.

The one with the smallest predicted latency. That counts what it has cached of the prompt as well as
what it has to do, so a prefix that many ask for stays where it is until others would be quicker,
and is computed there, too: no replica becomes a hot spot. A conversation stays where it was, though
another would be quicker, by up to half of what computing its whole prompt takes: its answers, and
what tiers hold of it, are there beyond what is known here.

Source: choosing by cached prefix and load together, as Preble (arXiv 2407.00023) and others do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from novacron.cluster.latency import Candidate, Demand, Prediction, predict
from novacron.records.routing import Alternative, RoutingDecision, RoutingReason

HOME_SHARE: Final = 0.5  # of the time that a conversation's prompt takes, its replica may be slower
_MOST_ALTERNATIVES: Final = 3

_Scored = tuple[float, int, int, Candidate, Prediction]


def choose(candidates: Sequence[Candidate], demand: Demand) -> RoutingDecision | None:
    """None if no replica is ready. Depends on nothing but what is given."""
    scored: list[_Scored] = []
    for one in candidates:
        if one.is_ready:
            found = predict(one, demand)
            scored.append((found.latency_s, one.num_live, one.turn, one, found))
    if not scored:
        return None
    scored.sort(key=_order)
    target = _home_of(scored, demand) or scored[0]
    _, _, _, chosen, prediction = target
    others = [one for one in scored[: _MOST_ALTERNATIVES + 1] if one is not target]
    return RoutingDecision(
        target=chosen.replica_id,
        why=_why(scored, chosen, demand),
        latency_s=prediction.latency_s,
        first_token_s=prediction.first_token_s,
        reused_tokens=chosen.cached_tokens,
        alternatives=tuple(
            Alternative(one[3].replica_id, one[0]) for one in others[:_MOST_ALTERNATIVES]
        ),
    )


def _order(scored: _Scored) -> tuple[float, int, int]:
    return scored[:3]


def _home_of(scored: Sequence[_Scored], demand: Demand) -> _Scored | None:
    """The replica of the conversation, unless it is gone or has too much to do."""
    if not demand.home:
        return None
    home = next((one for one in scored if one[3].replica_id == demand.home), None)
    if home is None:
        return None
    patience_s = HOME_SHARE * demand.num_tokens * home[3].speed.prefill_s
    return home if home[0] <= scored[0][0] + patience_s else None


def _why(scored: Sequence[_Scored], chosen: Candidate, demand: Demand) -> RoutingReason:
    if len(scored) == 1:
        return "only"
    if chosen.replica_id == demand.home:
        return "session"
    most = max(one[3].cached_tokens for one in scored)
    if most == 0:
        return "load"
    return "prefix" if chosen.cached_tokens == most else "spill"
