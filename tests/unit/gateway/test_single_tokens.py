"""Outputs cut into single tokens are what an engine would have told one by one."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from novacron.engine.output_processor import OutputProcessor, merge
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.handover.single_tokens import SingleTokens
from novacron.records.output import EngineOutput, RequestOutput
from novacron.records.request import FinishReason, Request, SamplingParams

TEXTS = st.text(alphabet="ab e\u00e9\u4e16\U0001f600", min_size=1, max_size=20)
STOPS = st.lists(st.text(alphabet="ab e", min_size=1, max_size=3), max_size=2).map(tuple)


def one_by_one(tokenizer: Tokenizer, request: Request, tokens: list[int]) -> list[RequestOutput]:
    processor = OutputProcessor(tokenizer, request, 0)
    outputs = []
    for place, token in enumerate(tokens):
        reason = FinishReason.LENGTH if place == len(tokens) - 1 else None
        engine_output = EngineOutput(request_id="r", new_token_ids=(token,), finish_reason=reason)
        outputs.append(processor.process(engine_output))
        if outputs[-1].finished:
            break
    return outputs


@given(text=TEXTS, stop=STOPS, sizes=st.lists(st.integers(1, 5), max_size=20), data=st.data())
def test_whatever_pieces_they_came_in(
    tokenizer: Tokenizer, text: str, stop: tuple[str, ...], sizes: list[int], data: st.DataObject
) -> None:
    tokens = list(tokenizer.encode(text))
    known = data.draw(st.integers(0, len(tokens) - 1))
    request = Request(
        request_id="r",
        prompt_token_ids=(tokens[0],),
        sampling=SamplingParams(stop=stop),
        arrival_time_s=0.0,
    )
    told = one_by_one(tokenizer, request, tokens)
    if known >= len(told):
        return
    num_cut = data.draw(st.integers(0, len(told)))
    merged: list[RequestOutput] = []
    left = told[known:]
    for size in [*sizes, len(left)]:
        part, left = left[:size], left[size:]
        if part:
            whole = part[0]
            for later in part[1:]:
                whole = merge(whole, later)
            merged.append(whole)
    continued = msgspec.structs.replace(request, output_token_ids=tuple(tokens[:known]))
    cutter = SingleTokens(tokenizer, continued, 0, num_cut)
    pieces = [piece for output in merged for piece in cutter.cut(output)]
    assert pieces[:num_cut] == told[known : known + num_cut]
    assert "".join(p.text for p in pieces) == "".join(p.text for p in told[known:])
    assert pieces[-1].finish_reason == told[-1].finish_reason
    assert pieces[-1].stop_reason == told[-1].stop_reason
