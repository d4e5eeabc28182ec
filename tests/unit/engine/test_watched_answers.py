from __future__ import annotations

from novacron.engine.watched_answers import WatchedAnswers
from novacron.quality.document import Document
from novacron.quality.watch import is_sampled
from novacron.records.output import EngineOutput
from novacron.records.request import FinishReason, Request, SamplingParams


def request(request_id: str, **changes: object) -> Request:
    return Request(
        request_id=request_id,
        prompt_token_ids=(1, 2, 3),
        sampling=SamplingParams(),
        arrival_time_s=0.0,
        **changes,  # type: ignore[arg-type]
    )


def test_an_answer_is_all_that_came_of_it() -> None:
    answers = WatchedAnswers(1.0)
    answers.begin(request("a"))
    answers.begin(request("b", output_token_ids=(9,)))
    assert list(answers.follow([EngineOutput("a", (4, 5)), EngineOutput("b", (10,))])) == []
    ended = [
        EngineOutput("a", (6,), finish_reason=FinishReason.STOP),
        EngineOutput("b", (), finish_reason=FinishReason.LENGTH),
        EngineOutput("unknown", (7,), finish_reason=FinishReason.STOP),
    ]
    assert list(answers.follow(ended)) == [
        Document((1, 2, 3, 4, 5, 6), 3),
        Document((1, 2, 3, 9, 10), 3),
    ]
    assert list(answers.follow(ended)) == [], "nothing is kept of what has ended"


def test_what_was_broken_off_or_is_no_answer_is_left_out() -> None:
    answers = WatchedAnswers(1.0)
    for request_id in ("aborted", "failed", "empty"):
        answers.begin(request(request_id))
    answers.begin(request("embedded", pooling="mean"))
    ended = [
        EngineOutput("aborted", (4,), finish_reason=FinishReason.ABORT),
        EngineOutput("failed", (4,), finish_reason=FinishReason.ERROR, error="no"),
        EngineOutput("empty", (), finish_reason=FinishReason.STOP),
        EngineOutput("embedded", (), finish_reason=FinishReason.STOP),
    ]
    assert list(answers.follow(ended)) == []


def test_only_a_share_is_watched() -> None:
    answers = WatchedAnswers(0.3)
    ids = [str(number) for number in range(100)]
    for request_id in ids:
        answers.begin(request(request_id))
    ended = [EngineOutput(one, (4,), finish_reason=FinishReason.STOP) for one in ids]
    assert len(list(answers.follow(ended))) == sum(is_sampled(one, 0.3) for one in ids)
