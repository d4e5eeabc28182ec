"""RequestStreams and OutputProcessor: what arrives from the engine reaches its caller, once."""

import asyncio
from pathlib import Path

import pytest

from novacron.engine.output_processor import OutputProcessor, merge
from novacron.engine.request_streams import RequestStream, RequestStreams
from novacron.engine.tokenization import Tokenizer
from novacron.errors import EngineDead, InvalidRequest
from novacron.records.output import EngineOutput, RequestOutput
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.records.step import PositionLogprobs
from novacron.testing.tiny_models import write_tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder)
    return Tokenizer.load(folder)


def make_request(request_id: str = "r", **sampling: object) -> Request:
    return Request(
        request_id=request_id,
        prompt_token_ids=(5, 6, 7),
        sampling=SamplingParams(**sampling),  # type: ignore[arg-type]
        arrival_time_s=0.0,
    )


async def read_all(stream: RequestStream) -> list[RequestOutput]:
    outputs = []
    while not stream.ended:
        outputs += await stream.next()
    return outputs


def news(tokenizer: Tokenizer, text: str, request_id: str = "r", **fields: object) -> EngineOutput:
    ids = tuple(tokenizer.encode(text))
    return EngineOutput(request_id=request_id, new_token_ids=ids, **fields)  # type: ignore[arg-type]


async def test_a_slow_reader_gets_everything_in_fewer_pieces(tokenizer: Tokenizer) -> None:
    streams = RequestStreams()
    stream = streams.open((make_request(),), tokenizer)
    for word in ("The", " quick", " brown"):
        streams.deliver([news(tokenizer, word)])
    streams.deliver([news(tokenizer, " fox", finish_reason=FinishReason.LENGTH)])
    [output] = await read_all(stream)
    assert output.text == "The quick brown fox"
    assert output.finish_reason is FinishReason.LENGTH
    assert output.num_output_tokens == len(output.token_ids)
    assert len(streams) == 0


async def test_outputs_that_arrive_while_the_reader_works_are_not_lost(
    tokenizer: Tokenizer,
) -> None:
    streams = RequestStreams()
    stream = streams.open((make_request(),), tokenizer)
    streams.deliver([news(tokenizer, "The")])
    [first] = await stream.next()
    streams.deliver([news(tokenizer, " end", finish_reason=FinishReason.LENGTH)])
    assert not stream.ended
    [last] = await read_all(stream)
    assert (first.text, last.text) == ("The", " end")


async def test_a_stop_string_ends_the_request_here_and_in_the_engine(tokenizer: Tokenizer) -> None:
    streams = RequestStreams()
    stream = streams.open((make_request(stop=("fox",)),), tokenizer)
    to_abort = streams.deliver([news(tokenizer, "The quick fox jumps")])
    assert to_abort == ("r",)
    [output] = await read_all(stream)
    assert output.text == "The quick "
    assert (output.finish_reason, output.stop_reason) == (FinishReason.STOP, "fox")
    assert streams.deliver([news(tokenizer, " over")]) == ()


async def test_the_token_that_stops_is_not_part_of_the_text(tokenizer: Tokenizer) -> None:
    streams = RequestStreams()
    stream = streams.open((make_request(stop_token_ids=(300,)),), tokenizer)
    ids = (*tokenizer.encode("The"), 300)
    streams.deliver([EngineOutput("r", ids, finish_reason=FinishReason.STOP, stop_token_id=300)])
    [output] = await read_all(stream)
    assert (output.text, output.stop_reason) == ("The", 300)
    assert output.num_output_tokens == len(ids)


async def test_failure_reaches_every_reader_after_what_had_arrived(tokenizer: Tokenizer) -> None:
    streams = RequestStreams()
    first = streams.open((make_request("a"),), tokenizer)
    second = streams.open((make_request("b"),), tokenizer)
    streams.deliver([news(tokenizer, "The", "a")])
    streams.fail_all(EngineDead("gone"))
    assert [output.text for output in await first.next()] == ["The"]
    for stream in (first, second):
        with pytest.raises(EngineDead):
            await stream.next()
    assert len(streams) == 0


async def test_abort_gives_one_final_output(tokenizer: Tokenizer) -> None:
    streams = RequestStreams()
    stream = streams.open((make_request(),), tokenizer)
    assert streams.abort("r")
    assert not streams.abort("r")
    [output] = await read_all(stream)
    assert output.finish_reason is FinishReason.ABORT


async def test_the_n_requests_of_a_call_keep_their_place(tokenizer: Tokenizer) -> None:
    streams = RequestStreams()
    stream = streams.open((make_request("a"), make_request("b")), tokenizer)
    for request_id in ("b", "a"):
        streams.deliver(
            [news(tokenizer, request_id, request_id, finish_reason=FinishReason.LENGTH)]
        )
    outputs = await read_all(stream)
    assert {output.index: output.text for output in outputs} == {0: "a", 1: "b"}


async def test_closing_early_names_what_still_runs(tokenizer: Tokenizer) -> None:
    streams = RequestStreams()
    stream = streams.open((make_request("a"), make_request("b")), tokenizer)
    streams.deliver([news(tokenizer, "x", "a", finish_reason=FinishReason.STOP)])
    assert streams.close(stream) == ("b",)
    assert len(streams) == 0


async def test_wait_idle_returns_when_the_last_request_has_ended(tokenizer: Tokenizer) -> None:
    streams = RequestStreams()
    streams.open((make_request(),), tokenizer)
    waiting = asyncio.create_task(streams.wait_idle())
    await asyncio.sleep(0)
    assert not waiting.done()
    streams.abort("r")
    await waiting


def test_an_id_in_use_is_refused(tokenizer: Tokenizer) -> None:
    streams = RequestStreams()
    streams.open((make_request(),), tokenizer)
    with pytest.raises(InvalidRequest, match="in use"):
        streams.open((make_request(),), tokenizer)


def test_logprobs_carry_text_and_bytes(tokenizer: Tokenizer) -> None:
    processor = OutputProcessor(tokenizer, make_request(), 0)
    [the, dog] = tokenizer.encode("The")[0], tokenizer.encode(" dog")[0]
    position = PositionLogprobs((the, the, dog), (-0.5, -0.5, -1.5), 1)
    output = processor.process(EngineOutput("r", (the,), logprobs=(position,)))
    [logprobs] = output.logprobs
    assert logprobs.chosen.text == tokenizer.token_text(the)
    assert [top.token_id for top in logprobs.top] == [the, dog]
    assert logprobs.top[1].data == tokenizer.token_bytes(dog)


def test_merge_keeps_the_order_and_the_end(tokenizer: Tokenizer) -> None:
    processor = OutputProcessor(tokenizer, make_request(), 0)
    first = processor.process(news(tokenizer, "The"))
    last = processor.process(news(tokenizer, " end", finish_reason=FinishReason.STOP))
    merged = merge(first, last)
    assert merged.finish_reason is FinishReason.STOP
    assert merged.token_ids == first.token_ids + last.token_ids
