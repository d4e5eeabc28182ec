from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from novacron.config.kv_layers import KVDtype
from novacron.kernels.kv_format import KVFormat, LayerFormat
from novacron.kernels.metadata import AttentionMetadata, KVLayer, Row
from novacron.kernels.native.attention import NativeAttentionPlan
from novacron.kernels.native.library import KV_FORMATS, NativeContext
from novacron.kernels.table import AttentionPlan
from novacron.kernels.torch_attention import plan_attention
from novacron.runner.kv_tensors import name_of

SCALE = 0.3
Plan = Callable[[AttentionMetadata, int | None], AttentionPlan]
Steps = list[list[tuple[int, int]]]  # of (sequence, tokens) parts


class Case:
    """Sequences of random queries, keys and values, and where their blocks are."""

    def __init__(
        self,
        lengths: list[int],
        *,
        kv_heads: int = 2,
        group: int = 3,
        head_dim: int = 8,
        block_size: int = 8,
        dtype: torch.dtype = torch.float32,
        kv_dtype: KVDtype | None = None,
        value_dtype: KVDtype | None = None,
    ) -> None:
        """`kv_dtype` is that of keys, and of values without a `value_dtype` of theirs."""
        key = KVFormat(kv_dtype or name_of(dtype))
        self.format = LayerFormat(key, KVFormat(value_dtype) if value_dtype else key)
        torch.manual_seed(sum(lengths) + head_dim)
        self.block_size, self.num_kv_heads, self.head_dim = block_size, kv_heads, head_dim
        # as the fused projection makes them: queries, keys and values of a token side by side
        self.qkv = [torch.randn(n, kv_heads * (group + 2), head_dim).to(dtype) for n in lengths]
        self.num_heads = kv_heads * group
        counts = [-(-n // block_size) for n in lengths]
        self.num_blocks = sum(counts) + 2
        shuffled = torch.randperm(self.num_blocks).tolist()
        self.tables = [[shuffled.pop() for _ in range(count)] for count in counts]

    def empty_cache(self) -> KVLayer:
        """Blocks of nobody are full of NaN."""
        key, value = (
            torch.full(
                (
                    self.num_kv_heads,
                    self.num_blocks,
                    kind.block_bytes(self.block_size, self.head_dim),
                ),
                0xFF,
                dtype=torch.uint8,
            )
            for kind in self.format
        )
        for table in self.tables:
            key[:, table] = value[:, table] = 0
        return KVLayer(key, value, self.format, self.block_size)

    def run(
        self, plan: Plan, steps: Steps, window: int | None = None, softcap: float | None = None
    ) -> list[Tensor]:
        """What the tokens of each sequence see, computed in these steps."""
        cache, done = self.empty_cache(), [0] * len(self.qkv)
        outputs: list[list[Tensor]] = [[] for _ in self.qkv]
        for step in steps:
            metadata, tokens = self._metadata(step, done)
            q, k, v = tokens.split((self.num_heads, self.num_kv_heads, self.num_kv_heads), 1)
            out = plan(metadata, window).attend(q, k, v, cache, SCALE, softcap)
            for row, (sequence, count) in zip(
                metadata.rows, self._ordered(step, done), strict=True
            ):
                outputs[sequence].append(out[row.first_token : row.first_token + count])
                done[sequence] += count
        return [torch.cat(parts) for parts in outputs if parts]

    @staticmethod
    def _ordered(step: list[tuple[int, int]], done: list[int]) -> list[tuple[int, int]]:
        return sorted(step, key=lambda part: (part[1] > 1, -done[part[0]]))

    def _metadata(
        self, step: list[tuple[int, int]], done: list[int]
    ) -> tuple[AttentionMetadata, Tensor]:
        rows, slots, tables, tokens, first = [], [], [], [], 0
        parts = self._ordered(step, done)
        width = max(-(-(done[s] + count) // self.block_size) for s, count in parts)
        for sequence, count in parts:
            table, start = self.tables[sequence], done[sequence]
            rows.append(Row(first, start, count))
            slots += [
                table[p // self.block_size] * self.block_size + p % self.block_size
                for p in range(start, start + count)
            ]
            tables.append((table + [table[0]] * width)[:width])
            tokens.append(self.qkv[sequence][start : start + count])
            first += count
        metadata = AttentionMetadata(
            rows=tuple(rows),
            num_decodes=sum(count == 1 for _, count in parts),
            block_size=self.block_size,
            block_tables_RB=torch.tensor(tables),
            lengths_R=torch.tensor([row.length for row in rows]),
            slots_T=torch.tensor(slots),
            rows_R3=torch.tensor(rows),
        )
        return metadata, torch.cat(tokens)


def singly(case: Case) -> Steps:
    """Each sequence for itself, whole."""
    return [[(index, len(qkv))] for index, qkv in enumerate(case.qkv)]


def native(context: NativeContext) -> Plan:
    return partial(NativeAttentionPlan, context)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block_size", [8, 16, 32, 128])
@pytest.mark.parametrize(("kv_heads", "group"), [(1, 1), (2, 3), (1, 8)])
@pytest.mark.parametrize("head_dim", [8, 40, 64, 128])
def test_shapes_and_types(
    context: NativeContext,
    dtype: torch.dtype,
    block_size: int,
    kv_heads: int,
    group: int,
    head_dim: int,
) -> None:
    case = Case(
        [70, 9, 150],
        kv_heads=kv_heads,
        group=group,
        head_dim=head_dim,
        block_size=block_size,
        dtype=dtype,
    )
    steps = [[(0, 69), (1, 5)], [(0, 1), (1, 4), (2, 100)], [(2, 50)]]
    found = case.run(native(context), steps)
    exact = Case.run(as_float32(case), plan_attention, steps)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for mine, theirs in zip(found, exact, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.float(), theirs, atol=tolerance, rtol=0)


def as_float32(case: Case) -> Case:
    """With a cache that holds bfloat16 exactly, if the case does."""
    case.qkv = [qkv.float() for qkv in case.qkv]
    case.format = LayerFormat(KVFormat("float32"), KVFormat("float32"))
    return case


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[int], Steps]:
    """Up to four sequences, cut into chunks that are mixed at random."""
    lengths = draw(st.lists(st.integers(1, 150), min_size=1, max_size=4))
    left, steps = list(lengths), []
    while any(left):
        waiting = [index for index, count in enumerate(left) if count]
        chosen = draw(st.lists(st.sampled_from(waiting), min_size=1, unique=True))
        step = []
        for index in chosen:
            count = draw(st.integers(1, left[index]))
            step.append((index, count))
            left[index] -= count
        steps.append(step)
    return lengths, steps


@settings(deadline=None, max_examples=20)
@given(
    schedule=schedules(),
    window=st.sampled_from([None, 1, 7, 64, 100]),
    softcap=st.sampled_from([None, 0.5]),
)
def test_any_schedule(
    contexts: Callable[..., NativeContext],
    level: str,
    schedule: tuple[list[int], Steps],
    window: int | None,
    softcap: float | None,
) -> None:
    """Equal to torch, and bit by bit to each sequence computed whole and alone."""
    lengths, steps = schedule
    case = Case(lengths)
    plan = native(contexts(level))
    found = case.run(plan, steps, window, softcap)
    whole = case.run(plan, singly(case), window, softcap)
    exact = case.run(plan_attention, steps, window, softcap)
    for mine, alone, theirs in zip(found, whole, exact, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
        assert torch.equal(mine, alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 50])
def test_threads_chunks_and_neighbours_change_no_bit(
    contexts: Callable[..., NativeContext], level: str, dtype: torch.dtype, window: int | None
) -> None:
    case = Case([200, 90, 131], kv_heads=2, group=4, head_dim=64, block_size=16, dtype=dtype)
    whole = case.run(native(contexts(level)), singly(case), window)
    chunked = [[(0, 130), (2, 131)], [(0, 1), (1, 90)], *([[(0, 1)]] * 5), [(0, 64)]]
    for num_threads in (1, 3):
        found = case.run(native(contexts(level, num_threads)), chunked, window)
        assert all(torch.equal(mine, alone) for mine, alone in zip(found, whole, strict=True))


def test_large_scores_do_not_overflow(context: NativeContext) -> None:
    case = Case([100])
    case.qkv = [qkv * 300 for qkv in case.qkv]
    (found,) = case.run(native(context), singly(case))
    (exact,) = case.run(plan_attention, singly(case))
    torch.testing.assert_close(found, exact, atol=0.05, rtol=1e-3)


KV_DTYPES: tuple[KVDtype, ...] = ("float32", "bfloat16", "float16", "int8", "fp8", "int4")
NARROW: tuple[KVDtype, ...] = KV_DTYPES[1:]


@pytest.mark.parametrize("key_dtype", KV_DTYPES)
@pytest.mark.parametrize("value_dtype", KV_DTYPES)
@pytest.mark.parametrize(
    ("block_size", "head_dim", "dtype"),
    [(8, 64, torch.bfloat16), (16, 40, torch.float32), (32, 128, torch.float32)],
)
def test_every_pair_of_formats_equals_that_of_torch(
    context: NativeContext,
    key_dtype: KVDtype,
    value_dtype: KVDtype,
    block_size: int,
    head_dim: int,
    dtype: torch.dtype,
) -> None:
    """Both hold the same numbers; products differ by the rounding of the queries, if at all."""
    case = Case(
        [70, 100], group=3, head_dim=head_dim, block_size=block_size,
        kv_dtype=key_dtype, value_dtype=value_dtype,
    )  # fmt: skip
    case.qkv = [qkv.to(dtype) for qkv in case.qkv]
    steps = [[(0, 69), (1, 5)], [(0, 1), (1, 65)], [(1, 30)]]
    found = case.run(native(context), steps)
    case.qkv = [qkv.float() for qkv in case.qkv]
    exact = case.run(plan_attention, steps)
    rounds_queries = dtype == torch.bfloat16 or key_dtype == "bfloat16"
    tolerance = 3e-2 if rounds_queries else 5e-4
    for mine, theirs in zip(found, exact, strict=True):
        torch.testing.assert_close(mine.float(), theirs, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("kv_dtype", "error"),
    [("float16", 3e-3), ("bfloat16", 3e-2), ("int8", 6e-2), ("fp8", 0.3), ("int4", 1.0)],
)
def test_errors_of_the_formats(context: NativeContext, kv_dtype: KVDtype, error: float) -> None:
    """Against a cache without rounding: no more than the format costs, and not nothing."""
    exact, found = (
        Case([300], group=2, head_dim=64, block_size=16, kv_dtype=kind).run(
            native(context), [[(0, 300)]]
        )[0]
        for kind in ("float32", kv_dtype)
    )
    difference = (found - exact).abs().max().item()
    assert error / 50 < difference < error


@pytest.mark.parametrize("head_dim", [40, 64])
@pytest.mark.parametrize(("key_dtype", "value_dtype"), list(permutations(KV_DTYPES, 2)))
def test_what_one_format_does_is_not_what_the_other_is(
    context: NativeContext, head_dim: int, key_dtype: KVDtype, value_dtype: KVDtype
) -> None:
    """Values that are zero but for a one in the place of their position show the weights, which
    depend on the keys' format alone, if the values' holds a one."""

    def weights(value_dtype: KVDtype) -> Tensor:
        case = Case(
            [head_dim], kv_heads=1, group=2, head_dim=head_dim, block_size=16,
            kv_dtype=key_dtype, value_dtype=value_dtype,
        )  # fmt: skip
        case.qkv[0][:, -1] = torch.eye(head_dim)
        return case.run(native(context), singly(case))[0]

    torch.testing.assert_close(weights(value_dtype), weights("float32"), atol=5e-3, rtol=0)


PAIRS: tuple[tuple[KVDtype, KVDtype], ...] = (
    *((kind, kind) for kind in NARROW),
    ("int8", "int4"),
    ("bfloat16", "int8"),
    ("float16", "fp8"),
    ("int4", "bfloat16"),
)


@pytest.mark.parametrize(("key_dtype", "value_dtype"), PAIRS)
@pytest.mark.parametrize("window", [None, 50])
def test_formats_change_no_invariance(
    contexts: Callable[..., NativeContext],
    level: str,
    key_dtype: KVDtype,
    value_dtype: KVDtype,
    window: int | None,
) -> None:
    case = Case(
        [200, 90, 131], kv_heads=2, group=3, head_dim=64, block_size=16,
        dtype=torch.bfloat16, kv_dtype=key_dtype, value_dtype=value_dtype,
    )  # fmt: skip
    whole = case.run(native(contexts(level)), singly(case), window)
    chunked = [[(0, 130), (2, 131)], [(0, 1), (1, 90)], *([[(0, 1)]] * 5), [(0, 64)]]
    found = case.run(native(contexts(level, 3)), chunked, window)
    assert all(torch.equal(mine, alone) for mine, alone in zip(found, whole, strict=True))


@pytest.mark.parametrize(
    ("key_dtype", "value_dtype"), [("bfloat16", "bfloat16"), ("int8", "int8"), ("int8", "int4")]
)
@pytest.mark.parametrize("window", [None, 1500])
def test_segments_shared_by_threads_change_no_bit(
    contexts: Callable[..., NativeContext],
    level: str,
    key_dtype: KVDtype,
    value_dtype: KVDtype,
    window: int | None,
) -> None:
    """A decode of 2,500 tokens in a chunk of 2,500, alone in a step, and beside another."""
    case = Case(
        [2501, 40], kv_heads=1, group=2, head_dim=32, kv_dtype=key_dtype, value_dtype=value_dtype
    )
    whole = case.run(native(contexts(level)), [[(0, 2501)]], window)[0]
    for num_threads in (1, 3):
        plan = native(contexts(level, num_threads))
        alone = case.run(plan, [[(0, 2493)], *([[(0, 1)]] * 8)], window)[0]
        beside = case.run(plan, [[(0, 2500)], [(0, 1), (1, 40)]], window)[0]
        assert torch.equal(alone, whole)
        assert torch.equal(beside, whole)


@pytest.mark.parametrize(("key_dtype", "value_dtype"), PAIRS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_hidden(
    context: NativeContext, key_dtype: KVDtype, value_dtype: KVDtype, bad: float
) -> None:
    """A request that computes such numbers must fail; one beside it must not."""
    for place in (-1, -2):  # a value, a key
        case = Case([30, 30], kv_heads=1, group=1, kv_dtype=key_dtype, value_dtype=value_dtype)
        case.qkv[0][20, place, 3] = bad
        sick, well = case.run(native(context), [[(0, 30), (1, 30)]])
        assert not bool(sick[21].isfinite().all())
        assert bool(well.isfinite().all())


def test_blocks_are_as_large_as_the_library_says(context: NativeContext) -> None:
    for kv_dtype, number in KV_FORMATS.items():
        for block_size in (8, 16, 128):
            for head_dim in (8, 40, 64, 80, 128):
                size = context.library.novacron_kv_block_bytes(number, block_size, head_dim)
                assert KVFormat(kv_dtype).block_bytes(block_size, head_dim) == size
