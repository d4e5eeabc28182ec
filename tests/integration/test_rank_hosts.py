"""One model over several hosts, behind real, encrypted links: the numbers of one process, and no
wait for ever when a host is gone."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from novacron.errors import ConfigError, ModelLoadError
from novacron.executor.executor import BlocksLost
from novacron.executor.hosts.linked_pipeline import LinkedPipelineExecutor
from novacron.executor.hosts.linked_slices import LinkedSlicesExecutor
from novacron.executor.hosts.orders import ComputeLogits
from novacron.executor.hosts.over_hosts import OverHosts
from novacron.parallel.messages.tensor_message import Compression
from novacron.records.request import SamplingParams
from novacron.records.step import SchedulerOutput
from novacron.testing.rank_hosts import RankThread, hosts_at
from novacron.testing.reference import Engine
from novacron.testing.server_process import wait_until
from novacron.testing.tiny_models import make_tiny_model

pytestmark = pytest.mark.usefixtures("needs_native_kernels")

CPU = torch.device("cpu")
PROMPTS = [random.Random(seed).choices(range(5, 380), k=20 * seed) for seed in (1, 2, 5, 3)]
SEEDED = SamplingParams(
    temperature=0.8, max_tokens=20, ignore_eos=True, seed=5, logprobs=3, prompt_logprobs=2
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"), num_hidden_layers=5)


def spread(
    executor: type[LinkedPipelineExecutor | LinkedSlicesExecutor],
    folder: Path,
    ranks: list[RankThread],
    compression: Compression = Compression.NONE,
    **settings: object,
) -> Engine:
    """Over this process and the ranks."""
    hosts = hosts_at(*(rank.address for rank in ranks), compression=compression)
    has_stages = executor is LinkedPipelineExecutor
    way = "pipeline_parallel_size" if has_stages else "tensor_parallel_size"
    return Engine(
        folder,
        CPU,
        executor=partial(executor, hosts=hosts),
        model=str(folder),
        **{way: len(ranks) + 1, **settings},  # type: ignore[arg-type]
    )


linked = partial(spread, LinkedPipelineExecutor)
sliced = partial(spread, LinkedSlicesExecutor)


def end(engine: Engine, ranks: list[RankThread]) -> None:
    engine.executor.shutdown()
    for rank in ranks:
        rank.join()
        assert "has ended it" in rank.reason


@pytest.fixture(scope="module")
def three(folder: Path) -> Iterator[Engine]:
    ranks = [RankThread(folder), RankThread(folder)]
    engine = linked(folder, ranks, max_num_batched_tokens=48)
    yield engine
    end(engine, ranks)


def test_three_hosts_answer_as_one_process(three: Engine, folder: Path) -> None:
    one = Engine(folder, CPU, max_num_batched_tokens=48)
    assert three.run(PROMPTS, SEEDED) == one.run(PROMPTS, SEEDED)
    assert three.most_in_flight == 3
    for fact in (
        "model_version", "num_parameters", "weight_bytes", "kv_cache_bytes", "num_blocks",
        "max_model_len", "kv_identity",
    ):  # fmt: skip
        assert getattr(three.executor.spec, fact) == getattr(one.executor.spec, fact), fact


def test_ranks_tell_what_they_have_counted(three: Engine) -> None:
    executor = three.executor
    assert isinstance(executor, LinkedPipelineExecutor)
    three.greedy(PROMPTS, 8)
    wait_until(lambda: len({one.num_steps for one in executor.rank_stats()}) == 1)
    ranks = executor.rank_stats()
    assert [one.stage for one in ranks] == [0, 1, 2]
    assert ranks[0].sent_bytes == ranks[1].sent_bytes == ranks[2].sent_bytes > 0
    assert all(0 < one.waited_s < one.step_s for one in ranks)
    links = {(one.rank, one.peer): one.link for one in executor.rank_links()}
    assert links.keys() == {(0, 1), (0, 2), (1, 2)}
    assert all(link.round_trip_s for link in links.values())
    # hidden states pass once over each of them; orders go from rank 0 to both
    assert links[1, 2].sent_bytes > ranks[1].sent_bytes
    assert links[0, 2].received_bytes > ranks[2].sent_bytes
    assert links[0, 1].num_sent > links[1, 2].num_sent


def test_prompts_with_a_prefix_in_common_share_its_blocks(three: Engine) -> None:
    prefix = random.Random(9).choices(range(5, 380), k=64)
    prompts = [[*prefix, *prompt[:10]] for prompt in PROMPTS]
    greedy = [one for prompt in prompts for one in three.greedy([prompt], 8)]
    assert [one.num_cached_tokens for one in greedy[1:]] == [64] * 3
    again = three.greedy(prompts, 8)
    assert [one.token_ids for one in again] == [one.token_ids for one in greedy]


def test_int8_between_hosts_tells_its_error(folder: Path) -> None:
    rank = RankThread(folder)
    engine = linked(folder, [rank], Compression.INT8)
    found = engine.greedy(PROMPTS, 8)
    executor = engine.executor
    assert isinstance(executor, LinkedPipelineExecutor)
    assert 0.0005 < executor.worst_compression_error < 0.03
    exact = Engine(folder, CPU).executor.spec
    assert executor.spec.kv_identity != exact.kv_identity  # nobody takes its blocks for others
    executor.shutdown()
    rank.join()
    assert [len(one.token_ids) for one in found] == [8] * 4


def test_slices_on_two_hosts_answer_as_one_process(folder: Path) -> None:
    ranks = [RankThread(folder)]
    pair = sliced(folder, ranks, max_num_batched_tokens=48)
    one = Engine(folder, CPU, max_num_batched_tokens=48)
    assert pair.run(PROMPTS, SEEDED) == one.run(PROMPTS, SEEDED)
    for fact in ("model_version", "num_parameters", "kv_cache_bytes", "num_blocks", "kv_identity"):
        assert getattr(pair.executor.spec, fact) == getattr(one.executor.spec, fact), fact
    executor = pair.executor
    assert isinstance(executor, LinkedSlicesExecutor)
    wait_until(lambda: len({one.num_meetings for one in executor.rank_stats()}) == 1)
    ours, theirs = executor.rank_stats()
    assert ours.num_steps == theirs.num_steps > 0
    assert ours.num_meetings > 10 * ours.num_steps  # two sums a layer, the embedding, logits
    assert theirs.sent_bytes > ours.sent_bytes > 0  # with its columns of the logits
    assert executor.spec.rank_hosts == (socket.gethostname(),)
    end(pair, ranks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("qwen3_moe", {"quantization": "int8", "quantization_group_size": 32}),
        ("gemma2", {"dtype": "bfloat16"}),
        ("qwen2_moe", {}),
        ("phi3", {}),
    ],
)
def test_slices_on_four_hosts_answer_as_one_process(
    tmp_path: Path, family: str, settings: dict[str, str]
) -> None:
    """Each rank then has a link to every other."""
    sizes = {"hidden_size": 128, "moe_intermediate_size": 128} if "moe" in family else {}
    folder = make_tiny_model(family, tmp_path, **sizes)
    ranks = [RankThread(folder) for _ in range(3)]
    four = sliced(folder, ranks, **settings)
    assert four.run(PROMPTS[:2], SEEDED) == Engine(folder, CPU, **settings).run(PROMPTS[:2], SEEDED)
    end(four, ranks)


@pytest.mark.slow
def test_slices_that_torch_computes_answer_nearly_as_one(folder: Path) -> None:
    ranks = [RankThread(folder, kernels="torch")]
    pair = sliced(folder, ranks, kernels="torch")
    assert pair.greedy(PROMPTS, 8) == Engine(folder, CPU, kernels="torch").greedy(PROMPTS, 8)
    end(pair, ranks)


def test_sums_in_int8_tell_their_error(folder: Path) -> None:
    ranks = [RankThread(folder)]
    pair = sliced(folder, ranks, Compression.INT8)
    assert [len(one.token_ids) for one in pair.greedy(PROMPTS, 8)] == [8] * 4
    executor = pair.executor
    assert isinstance(executor, LinkedSlicesExecutor)
    assert 0.0005 < executor.worst_compression_error < 0.03
    assert executor.spec.kv_identity != Engine(folder, CPU).executor.spec.kv_identity
    end(pair, ranks)


@pytest.mark.parametrize(
    ("way", "size", "at"), [(sliced, 1, 0), (sliced, 1, 9), (linked, 1, 7), (linked, 2, 9)]
)
def test_a_host_that_leaves_is_replaced(
    folder: Path, way: Callable[..., Engine], size: int, at: int
) -> None:
    ranks = [RankThread(folder, num_lives=2) for _ in range(size)]
    engine = way(folder, ranks)
    executor, before, count = engine.executor, engine.executor.submit, iter(range(10**6))
    assert isinstance(executor, OverHosts)

    def submit(scheduler_output: SchedulerOutput) -> None:
        if next(count) == at:
            ranks[-1].fault = ConnectionError("its memory has gone bad")
        before(scheduler_output)

    executor.submit = submit  # type: ignore[method-assign]
    told: list[tuple[int, ...]] = []
    executor.tell_losses(lambda: told.append(executor.lost_ranks))
    assert engine.run(PROMPTS, SEEDED) == Engine(folder, CPU).run(PROMPTS, SEEDED)
    assert engine.num_preemptions > 0
    assert executor.num_ranks_replaced == size
    assert size in told[0]
    assert told[-1] == executor.lost_ranks == ()
    end(engine, ranks)


def test_a_host_that_leaves_while_nothing_runs_is_replaced(folder: Path) -> None:
    rank = RankThread(folder, num_lives=2)
    pair = linked(folder, [rank])
    executor = pair.executor
    assert isinstance(executor, OverHosts)
    expected = pair.run(PROMPTS, SEEDED)
    executor.restore()
    assert executor.num_ranks_replaced == 0
    executor._team.tell_all(ComputeLogits(()))  # which no stage is asked for
    wait_until(lambda: executor.lost_ranks == (1,))
    with pytest.raises(BlocksLost):
        executor.restore()
    assert executor.lost_ranks == ()
    pair.lose_blocks()
    assert pair.run(PROMPTS, SEEDED) == expected
    end(pair, [rank])


def test_a_host_with_other_files_is_not_served_with(folder: Path, tmp_path: Path) -> None:
    other = make_tiny_model("llama", tmp_path, num_hidden_layers=5, seed=1)
    rank = RankThread(other)
    with pytest.raises(ModelLoadError, match="other files of the model"):
        linked(folder, [rank])
    rank.join()


def test_what_a_host_cannot_do_is_told_with_its_name(folder: Path, tmp_path: Path) -> None:
    rank = RankThread(tmp_path / "nothing")
    with pytest.raises(ModelLoadError, match=r"On the host at 127.0.0.1:\d+: .*nothing"):
        linked(folder, [rank])
    rank.join()


def test_other_kernels_are_refused(folder: Path) -> None:
    rank = RankThread(folder, kernels="torch")
    with pytest.raises(ConfigError, match=r"computes with .*torch kernels"):
        linked(folder, [rank])
    rank.join()
