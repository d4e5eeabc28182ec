from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.bench.http_client import Exchange
from novacron.bench.transcript import events, read_transcript


def _sse(*items: Any) -> list[bytes]:
    texts = [item if isinstance(item, str) else json.dumps(item) for item in items]
    return [f"data: {text}\n\n".encode() for text in texts]


def _exchange(pieces: list[bytes], status: int = 200, error: str | None = None) -> Exchange:
    """Piece n arrives n + 1 seconds after the start at 100."""
    chunks = [(101.0 + n, piece) for n, piece in enumerate(pieces)]
    return Exchange(100.0, 200.0, status, chunks, error)


def _choice(**choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, **choice}]}


def test_times_of_a_text_completion() -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    pieces = _sse(
        _choice(text="a"),
        _choice(text="bc"),
        _choice(text="", finish_reason="length"),
        {"choices": [], "usage": usage},
        "[DONE]",
    )
    transcript = read_transcript(_exchange(pieces))
    assert transcript.ok
    assert transcript.text == "abc"
    assert (transcript.ttft_s, transcript.e2e_s, transcript.ended_s) == (1, 3, 103)
    assert transcript.itls_s == (1,)
    assert transcript.tpot_s == pytest.approx(2 / 3)
    assert (transcript.num_prompt_tokens, transcript.num_cached_tokens) == (5, 3)
    assert transcript.finish_reason == "length"


def test_the_role_of_a_chat_is_no_token() -> None:
    pieces = _sse(
        _choice(delta={"role": "assistant", "content": ""}),
        _choice(delta={"content": "Hi"}),
        _choice(delta={"reasoning_content": "hm"}),
        _choice(delta={}, finish_reason="stop"),
    )
    transcript = read_transcript(_exchange(pieces))
    assert transcript.arrivals_s == (2, 3)
    assert transcript.e2e_s == 4
    assert transcript.num_output_tokens == 2
    assert transcript.text == "Hi"


def test_a_single_token_has_no_time_per_further_token() -> None:
    transcript = read_transcript(_exchange(_sse(_choice(text="a", finish_reason="stop"))))
    assert transcript.tpot_s is None
    assert transcript.itls_s == ()


def test_an_answer_without_visible_text_is_timed_by_its_end() -> None:
    transcript = read_transcript(_exchange(_sse(_choice(text="", finish_reason="stop"))))
    assert transcript.ok
    assert transcript.ttft_s == 1


@pytest.mark.parametrize(
    ("exchange", "message"),
    [
        (_exchange([], error="it broke"), "it broke"),
        (_exchange([b'{"error": {"message": "full"}}'], status=503), "status 503: full"),
        (_exchange([b"<html>"], status=502), "status 502: <html>"),
        (_exchange(_sse({"error": {"message": "engine died"}})), "engine died"),
        (_exchange([b"data: {oops\n\n"]), "no JSON"),
        (_exchange(_sse("[DONE]")), "no token"),
    ],
)
def test_failures_are_told(exchange: Exchange, message: str) -> None:
    transcript = read_transcript(exchange)
    assert not transcript.ok
    assert message in (transcript.error or "")


@given(st.lists(st.integers(1, 40), max_size=20))
def test_events_do_not_depend_on_how_the_bytes_were_cut(cuts: list[int]) -> None:
    stream = b": ping\n\n" + b"".join(_sse({"n": 1}, {"n": 2}, "[DONE]"))
    pieces, position = [], 0
    for cut in cuts:
        pieces.append(stream[position : position + cut])
        position += cut
    pieces.append(stream[position:])
    chunks = [(float(n), piece) for n, piece in enumerate(pieces)]
    assert [data for _, data in events(chunks)] == [b'{"n": 1}', b'{"n": 2}', b"[DONE]"]


def test_an_event_is_as_late_as_its_last_byte() -> None:
    assert list(events([(1.0, b"data: a"), (2.0, b"b\n\nda"), (3.0, b"ta: c")])) == [
        (2.0, b"ab"),
        (3.0, b"c"),
    ]
