"""novacron plan: what of a model fits into this machine's memory, without loading it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click
import msgspec

from novacron.cli.options import serving_command
from novacron.cli.wording import size
from novacron.config.engine import SharedDevice
from novacron.config.host_shares import of_replica, refuse_other_number_of_hosts
from novacron.config.load import Settings
from novacron.config.variants import parse_variants
from novacron.executor.memory_plan import Capacity, MemoryPlan, Neighbour
from novacron.executor.rank_plan import RankPlan

_RANK_TITLES = ("Ranks", "stage", "layers", "slice", "rows", "weights", "KV cache")


@serving_command("model", "cache", "scheduler", "speculative")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def plan(settings: Settings, *, as_json: bool) -> None:
    """Show how the memory of this machine would be shared out, and what would fit.

    Takes the same MODEL, options, file and environment as `novacron serve`, and reads no weights.
    If what is asked for does not fit, says why and what would, with exit code 1 or 2.
    """
    engine = settings.engine

    from novacron.engine.draft_pair import find_draft_model
    from novacron.engine.model_path import resolve_model_path
    from novacron.executor.blueprint import dims_of, draw_blueprint
    from novacron.executor.device_memory import measure_device_memory
    from novacron.executor.memory_plan import plan_memory
    from novacron.executor.neighbours import draw_neighbours
    from novacron.executor.parallel_limits import refuse_with_ranks
    from novacron.executor.rank_plan import plan_ranks
    from novacron.executor.rank_sharing import shape_of_ranks

    path = resolve_model_path(engine.model.model)
    dims = dims_of(engine.model)
    refuse_other_number_of_hosts(engine, engine.model.data_parallel_size)
    refuse_with_ranks(of_replica(engine, 0))
    whole = draw_blueprint(engine.model, path, 1)
    blueprint = whole.of_rank(0, dims)
    draft_path = find_draft_model(engine, path)
    draft = None if draft_path is None else whole.of_draft(draft_path)
    shared = SharedDevice(others=parse_variants(engine.model.variants))
    has_hosts = bool(engine.apart.hosts)
    found = plan_memory(
        blueprint.shape() if has_hosts else shape_of_ranks(blueprint, engine.model),
        measure_device_memory(blueprint.device, engine.cache),
        engine.cache,
        engine.scheduler,
        engine.speculative,
        max_model_len=engine.model.max_model_len,
        draft=None if draft is None else draft.shape(),
        neighbours=draw_neighbours(
            blueprint, draft, shared, engine.model, engine.scheduler, engine.speculative
        ),
        num_replicas=engine.model.data_parallel_size,
    )
    ranks = plan_ranks(blueprint, engine.cache, found.num_blocks)
    if as_json:
        text = msgspec.json.encode(
            {**msgspec.to_builtins(found), "fits": found.fits, "ranks": ranks}
        )
        click.echo(msgspec.json.format(text).decode())
        return
    name = f"{blueprint.path} ({blueprint.architecture}), {blueprint.kernels.name} kernels"
    click.echo(render(found, name, ranks))


def render(plan: MemoryPlan, model: str, ranks: Sequence[RankPlan] = ()) -> str:
    """As tables for people; one rank alone needs none for itself."""
    device = plan.device
    rows = {
        "Model": model,
        "Memory": f"{size(device.free_bytes)} free of {size(device.total_bytes)} on {device.name}",
        "Weights": f"{size(plan.weight_bytes)}",
        "Largest step": f"{size(plan.step_bytes)}: {plan.step_tokens:,} tokens, "
        f"{plan.logit_rows:,} rows of logits",
        "KV cache": f"{size(plan.kv_cache_bytes)}: {plan.num_blocks:,} blocks of "
        f"{plan.block_size} tokens in {plan.capacity.kv_dtype}",
        **{f"+ {other.name}": _beside(other) for other in plan.neighbours},
        **_replicas(plan),
        "Fits": plan.fits,
    }
    lines = [f"{name:13} {value}" for name, value in rows.items()]
    titles = (
        "KV precision", "a token", f"streams of {plan.context:,}",
        f"tokens, each of {plan.max_num_seqs}", "tokens, one",
    )  # fmt: skip
    if len(ranks) > 1:
        lines += ["", *_aligned([_RANK_TITLES, *map(_rank_row, ranks)])]
    lines += ["", *_aligned([titles, *map(_row, (plan.capacity, *plan.alternatives))])]
    return "\n".join(lines)


def _aligned(table: list[tuple[str, ...]]) -> Iterator[str]:
    """Lines with the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *others in table:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join((f"{first:{widths[0]}}", *cells))


def _rank_row(rank: RankPlan) -> tuple[str, ...]:
    return (
        f"rank {rank.rank}",
        str(rank.stage),
        f"{rank.first_layer}-{rank.last_layer}",
        f"{rank.slice + 1} of {rank.num_slices}",
        f"{rank.rows + 1} of {rank.num_shares}",
        size(rank.weight_bytes),
        size(rank.kv_cache_bytes),
    )


def _replicas(plan: MemoryPlan) -> dict[str, str]:
    if plan.num_replicas == 1:
        return {}
    return {"Replicas": f"{plan.num_replicas}, each with all of the above; figures are of one"}


def _beside(other: Neighbour) -> str:
    return (
        f"{size(other.weight_bytes)} weights, {size(other.step_bytes)} for its largest step, "
        "and as much for its KV cache"
    )


def _row(capacity: Capacity) -> tuple[str, ...]:
    return (
        capacity.kv_dtype,
        size(capacity.bytes_per_token),
        f"{capacity.max_streams:,}",
        f"{capacity.context_of_all:,}",
        f"{capacity.context_of_one:,}",
    )
