"""EngineCore over a FakeExecutor: every accepted request ends once, constrained ones included."""

import json
import time
from pathlib import Path

import msgspec
import pytest

from novacron.config.scheduler import SchedulerConfig
from novacron.engine.core import EngineCore
from novacron.engine.structured_output import GrammarCompiler
from novacron.engine.tokenization import Tokenizer
from novacron.executor.executor import BlocksLost
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.records.output import EngineOutput
from novacron.records.request import FinishReason, Request, SamplingParams, StructuredOutput
from novacron.records.step import ModelRunnerOutput, SchedulerOutput
from novacron.scheduler.cache_desk import CacheDesk
from novacron.scheduler.scheduler import Scheduler
from novacron.scheduler.sessions import Sessions
from novacron.testing.fake_executor import FakeExecutor, fake_spec
from novacron.testing.tiny_models import EOS_TOKEN_ID, VOCAB_SIZE, write_tiny_tokenizer

SPEC = fake_spec(vocab_size=VOCAB_SIZE, eos_token_ids=(EOS_TOKEN_ID,))
PATIENCE_S = 60.0
SCHEMA = {
    "type": "object",
    "properties": {"numbers": {"type": "array", "items": {"type": "integer"}, "minItems": 6}},
    "required": ["numbers"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder)
    return Tokenizer.load(folder)


def make_core(
    tokenizer: Tokenizer, max_in_flight: int = 1, executor: FakeExecutor | None = None
) -> EngineCore:
    executor = executor or FakeExecutor(SPEC, max_steps_in_flight=max_in_flight)
    kv_cache = KVCacheManager(
        SPEC.num_blocks, SPEC.block_size, model_version="v", kv_dtype="float32"
    )
    scheduler = Scheduler(
        SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64),
        kv_cache,
        max_model_len=SPEC.max_model_len,
        eos_token_ids=frozenset(SPEC.eos_token_ids),
        max_in_flight=executor.max_steps_in_flight,
    )
    return EngineCore(
        executor,
        scheduler,
        lambda: GrammarCompiler(tokenizer.json_text, SPEC.vocab_size, SPEC.eos_token_ids),
        CacheDesk(kv_cache, None, Sessions()),
    )


def make_request(request_id: str, **sampling: object) -> Request:
    return Request(
        request_id=request_id,
        prompt_token_ids=(20, 21, 22),
        sampling=SamplingParams(**{"max_tokens": 5, "seed": 1, **sampling}),  # type: ignore[arg-type]
        arrival_time_s=0.0,
    )


def run(core: EngineCore) -> list[EngineOutput]:
    """Step until nothing is left to do."""
    outputs = []
    deadline = time.monotonic() + PATIENCE_S
    while core.has_work:
        assert time.monotonic() < deadline
        outputs += core.step()
    return outputs


def finals(outputs: list[EngineOutput]) -> dict[str, FinishReason]:
    ended = [output for output in outputs if output.finish_reason is not None]
    assert len({output.request_id for output in ended}) == len(ended), "two final outputs"
    return {output.request_id: output.finish_reason for output in ended if output.finish_reason}


@pytest.mark.parametrize("max_in_flight", [1, 3])
def test_every_request_ends_once(tokenizer: Tokenizer, max_in_flight: int) -> None:
    core = make_core(tokenizer, max_in_flight)
    for place in range(10):
        core.add(make_request(str(place), ignore_eos=True))
    outputs = run(core)
    assert finals(outputs) == {str(place): FinishReason.LENGTH for place in range(10)}
    assert core.stats().num_used_blocks == 0
    assert core.stats().num_steps == core.num_steps > 0


def test_a_request_that_the_scheduler_refuses_ends_with_an_error(tokenizer: Tokenizer) -> None:
    core = make_core(tokenizer)
    core.add(make_request("twice", ignore_eos=True))
    core.add(make_request("twice", ignore_eos=True))
    outputs = run(core)
    reasons = sorted(output.finish_reason for output in outputs if output.finish_reason)
    assert reasons == [FinishReason.ERROR, FinishReason.LENGTH]
    [refused] = [output for output in outputs if output.error]
    assert "in use" in str(refused.error)


@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_a_grammar_is_obeyed_to_its_end(tokenizer: Tokenizer, max_in_flight: int) -> None:
    core = make_core(tokenizer, max_in_flight)
    spec = StructuredOutput("choice", '["Paris", "London"]')
    core.add(make_request("constrained", max_tokens=50, structured_output=spec))
    outputs = run(core)
    tokens = [token for output in outputs for token in output.new_token_ids]
    assert finals(outputs) == {"constrained": FinishReason.STOP}
    assert tokenizer.decode(tokens) in ("Paris", "London")


def test_an_id_used_again_has_the_grammar_of_its_own_request(tokenizer: Tokenizer) -> None:
    core = make_core(tokenizer, max_in_flight=2)
    first = StructuredOutput("choice", '["London"]')
    then = StructuredOutput("choice", '["Paris"]')
    for request_id in ("a", "b"):
        core.add(make_request(request_id, max_tokens=50, structured_output=first))
    step_until_in_flight(core)
    [aborted] = core.abort(["b"])
    assert aborted.finish_reason is FinishReason.ABORT
    core.add(make_request("b", max_tokens=50, structured_output=then))
    outputs = run(core)
    tokens = [t for output in outputs if output.request_id == "b" for t in output.new_token_ids]
    assert tokenizer.decode(tokens) == "Paris"
    assert finals(outputs) == {"a": FinishReason.STOP, "b": FinishReason.STOP}


def step_until_in_flight(core: EngineCore) -> None:
    """Until each request has a token, and one of them another step under way."""
    answered: set[str] = set()
    deadline = time.monotonic() + PATIENCE_S
    while not (len(answered) == 2 and core.stats().num_running == 2 and core._in_flight):
        assert time.monotonic() < deadline
        answered.update(output.request_id for output in core.step())


def test_what_is_in_flight_when_the_last_request_is_aborted_is_seen(tokenizer: Tokenizer) -> None:
    core = make_core(tokenizer, max_in_flight=2)
    for request_id in ("a", "b"):
        core.add(make_request(request_id, max_tokens=50, ignore_eos=True))
    step_until_in_flight(core)
    core.abort(["a", "b"])
    assert core.has_work
    assert run(core) == []
    assert core.stats().num_used_blocks == 0


def test_a_constrained_request_goes_on_behind_any_token_with_the_same_ones(
    tokenizer: Tokenizer,
) -> None:
    spec = StructuredOutput("json_schema", json.dumps(SCHEMA))
    whole = make_request("whole", max_tokens=60, temperature=1.0, structured_output=spec)
    core = make_core(tokenizer)
    core.add(whole)
    outputs = run(core)
    tokens = tuple(token for output in outputs for token in output.new_token_ids)
    assert len(tokens) > 8
    for cut in range(len(tokens)):
        core = make_core(tokenizer)
        core.add(msgspec.structs.replace(whole, request_id="rest", output_token_ids=tokens[:cut]))
        rest = run(core)
        assert tuple(token for output in rest for token in output.new_token_ids) == tokens[cut:]
        assert finals(rest) == {"rest": outputs[-1].finish_reason}


def test_a_grammar_that_cannot_be_compiled_fails_its_request_alone(tokenizer: Tokenizer) -> None:
    core = make_core(tokenizer)
    bad = StructuredOutput("regex", "(unclosed")
    core.add(make_request("bad", structured_output=bad))
    core.add(make_request("good", ignore_eos=True))
    outputs = run(core)
    assert finals(outputs) == {"bad": FinishReason.ERROR, "good": FinishReason.LENGTH}


def test_abort_reaches_a_request_whose_grammar_is_being_compiled(tokenizer: Tokenizer) -> None:
    core = make_core(tokenizer)
    core.add(make_request("r", structured_output=StructuredOutput("regex", "[a-z]+")))
    [output] = core.abort(["r"])
    assert output.finish_reason is FinishReason.ABORT
    assert run(core) == []


def test_abort_all_ends_everything(tokenizer: Tokenizer) -> None:
    core = make_core(tokenizer)
    core.add(make_request("running", ignore_eos=True))
    core.step()
    core.add(make_request("waiting", ignore_eos=True))
    core.add(make_request("compiling", structured_output=StructuredOutput("regex", "[a-z]+")))
    ended = finals(core.abort_all())
    assert ended == dict.fromkeys(("running", "waiting", "compiling"), FinishReason.ABORT)
    assert not core.has_work


class LossyExecutor(FakeExecutor):
    """Loses all blocks in the calls with these numbers."""

    def __init__(self, max_in_flight: int, losses: set[int]) -> None:
        super().__init__(SPEC, max_steps_in_flight=max_in_flight)
        self._num_calls, self._losses = 0, losses

    def _lose(self) -> None:
        self._num_calls += 1
        if self._num_calls in self._losses:
            self.lose_blocks()
            raise BlocksLost("a host is away")

    def submit(self, scheduler_output: SchedulerOutput) -> None:
        self._lose()
        super().submit(scheduler_output)

    def collect(self) -> ModelRunnerOutput:
        self._lose()
        return super().collect()


@pytest.mark.parametrize("max_in_flight", [1, 3])
def test_lost_blocks_change_no_token_and_no_grammar(
    tokenizer: Tokenizer, max_in_flight: int
) -> None:
    found = []
    spec = StructuredOutput("choice", '["Paris", "London"]')
    for losses in (set[int](), {1, 6, 7, 12, 19, 25, 40}):
        core = make_core(tokenizer, executor=LossyExecutor(max_in_flight, losses))
        core.add(make_request("json", structured_output=spec))
        for number in range(3):
            core.add(make_request(f"r{number}", ignore_eos=True))
        outputs = run(core)
        tokens: dict[str, list[int]] = {}
        for output in outputs:
            tokens.setdefault(output.request_id, []).extend(output.new_token_ids)
        found.append((tokens, finals(outputs)))
        assert bool(core.stats().num_preemptions) == bool(losses)
    assert found[0] == found[1]
