"""The canary: what passes, what does not, and when it goes."""

from __future__ import annotations

from novacron.engine.canary import LEAST_CONTEXT, Canary, CanaryRecord
from novacron.records.output import EngineOutput, ModelSpec
from novacron.records.request import FinishReason

LOOK_S = 0.5
SPEC = ModelSpec(
    name="x", model_version="v", architecture="a", vocab_size=100, hidden_size=1, max_model_len=64,
    eos_token_ids=(0,), dtype="float32", device="cpu", num_parameters=1, weight_bytes=1,
    num_blocks=1, block_size=16, kv_cache_bytes=1,
)  # fmt: skip


def canary(record: CanaryRecord, *, is_first: bool = True, interval_s: float = 2.0) -> Canary:
    return Canary(record, interval_s=interval_s, timeout_s=3.0, look_s=LOOK_S, is_first=is_first)


def looks_until_due(one: Canary, num_live: int = 0) -> int:
    return next(number for number in range(1, 1000) if one.is_due(num_live))


def said(request_id: str, *tokens: int, ends: bool = True) -> EngineOutput:
    reason = FinishReason.LENGTH if ends else None
    return EngineOutput(request_id=request_id, new_token_ids=tokens, finish_reason=reason)


def test_the_first_answer_is_the_one_that_is_known_from_then_on() -> None:
    record = CanaryRecord()
    for number, (answer, failure) in enumerate([((1, 2), None), ((1, 2), None), ((1, 3), "wrong")]):
        one = canary(record)
        request = one.begin(number, SPEC, now_s=10.0)
        other = said("other", 5)
        began = said(request.request_id, answer[0], ends=False)
        assert one.take((other, began), 10.1) == ((other,), None)
        assert one.take((said(request.request_id, answer[1]),), 10.5) == ((), failure)
        assert not one.is_under_way
    assert (record.stats.num_passed, record.stats.num_wrong) == (2, 1)
    assert record.stats.is_failing
    assert record.num_failures == 1


def test_it_is_small_and_nobodys() -> None:
    request = canary(CanaryRecord()).begin(1, SPEC, 0.0)
    assert request.uncounted
    most = len(request.prompt_token_ids) + (request.sampling.max_tokens or 0)
    assert most == LEAST_CONTEXT < SPEC.block_size, "or it would leave a block in the cache"
    assert all(0 <= token < SPEC.vocab_size for token in request.prompt_token_ids)
    assert request.sampling.temperature == 0


def test_another_model_has_another_answer() -> None:
    record = CanaryRecord()
    for version, answer in (("v", 1), ("w", 2)):
        one = canary(record)
        spec = ModelSpec(**{**_fields(SPEC), "model_version": version})
        request = one.begin(1, spec, 0.0)
        assert one.take((said(request.request_id, answer),), 1.0)[1] is None


def _fields(spec: ModelSpec) -> dict[str, object]:
    return {name: getattr(spec, name) for name in spec.__struct_fields__}


def test_it_goes_when_idle_and_more_seldom_beside_work() -> None:
    record = CanaryRecord()
    idle = looks_until_due(canary(record)) * LOOK_S
    busy = looks_until_due(canary(record), num_live=3) * LOOK_S
    assert 2.0 < idle < 3.0
    assert 8.0 < busy < 9.0
    assert not canary(record, interval_s=0.0).is_due(0)


def test_an_engine_that_was_started_anew_is_tried_at_once() -> None:
    record = CanaryRecord(answers={("", "v", "none", ""): (1,)})
    assert looks_until_due(canary(record, is_first=False)) == 1
    assert looks_until_due(canary(record)) > 1


def test_no_answer_counts_only_while_there_is_nothing_else_to_do() -> None:
    record = CanaryRecord()
    one = canary(record)
    assert one.look(0) is None, "nobody was asked"
    one.begin(1, SPEC, 0.0)
    assert all(one.look(num_live=2) is None for _ in range(100))
    found = [one.look(0) for _ in range(7)]
    assert found == [None] * 6 + ["missing"]
    assert not any(one.is_due(0) for _ in range(100)), "an engine that failed is not tried again"
    assert (record.stats.num_missing, record.stats.is_failing) == (1, True)
    slow = CanaryRecord(first_took_s=5.0)
    one = canary(slow)
    one.begin(1, SPEC, 0.0)
    assert all(one.look(0) is None for _ in range(100)), "ten times what it took at first"


def test_one_that_made_way_for_others_says_nothing() -> None:
    record = CanaryRecord()
    one = canary(record)
    request = one.begin(1, SPEC, 0.0)
    shed = EngineOutput(
        request_id=request.request_id, finish_reason=FinishReason.ERROR, was_shed=True
    )
    assert one.take((shed,), 1.0) == ((), None)
    assert record.stats.num_passed == record.num_failures == 0
