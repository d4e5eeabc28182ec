"""novacron quantize-plan: a level for each matrix, so that all fit into a budget of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
import yaml
from rich.console import Console

from novacron.cli.options import serving_command
from novacron.cli.sensitivity_file import identity_of, read_sensitivity
from novacron.cli.wording import size
from novacron.config.load import Settings
from novacron.config.quantities import parse_bytes
from novacron.config.weight_layers import parse_precision
from novacron.engine.model_path import resolve_model_path
from novacron.errors import ConfigError
from novacron.quantization.levels import LEVELS

if TYPE_CHECKING:
    from novacron.quality.document import Document
    from novacron.quality.sensitivity import PrecisionPlan, Sensitivity

_MNAT = 1000
_FILE = click.Path(dir_okay=False, path_type=Path)


@serving_command("model")
@click.option(
    "--budget", required=True, metavar="SIZE", help="Most bytes that all weights may take: 12Mi."
)
@click.option(
    "--levels",
    default="int8,int4,int4/64,int4/128",
    show_default=True,
    help="Precisions that matrices may have; /64: in groups of 64.",
)
@click.option("--corpus", type=_FILE, help="Text to measure on; without: chats of the tasks.")
@click.option("--num-documents", default=200, show_default=True, help="Chats, or windows of it.")
@click.option("--window", default=512, show_default=True, help="Tokens of a window of the text.")
@click.option("--tasks", default="all", show_default=True, help="Whose chats, with commas.")
@click.option("--corpus-seed", default=0, show_default=True, help="Of the chats.")
@click.option(
    "--sensitivity", "kept", type=_FILE, metavar="FILE",
    help="What was measured (JSON): read if it is there, else measured and written. Ended, it goes "
    "on with FILE.part.",
)  # fmt: skip
@click.option("--output", type=_FILE, help="File to write, for novacron serve --config.")
def quantize_plan(
    settings: Settings,
    *,
    budget: str,
    levels: str,
    corpus: Path | None,
    num_documents: int,
    window: int,
    tasks: str,
    corpus_seed: int,
    kept: Path | None,
    output: Path | None,
) -> None:
    """Choose a level for each matrix: what is lost is least, and the weights fit into the budget.

    Measures first what each matrix loses at each level while all others are as they are, in
    divergence (KL) from the model in float32. Then shares out the bytes, exactly. Compare the plan
    with `novacron bench accuracy --config FILE --against quantization=int4`, say.
    """
    from novacron.quality.sensitivity import plan_precision

    budget_bytes = parse_bytes(budget)
    measured = read_sensitivity(settings, kept) if kept is not None and kept.exists() else None
    if measured is None:
        documents = _documents(settings, corpus, num_documents, window, tasks, corpus_seed)
        measured = _measure(settings, _levels(levels), documents, corpus, kept)
    plan = plan_precision(measured, budget_bytes)
    click.echo(render(measured, plan))
    if output is not None:
        output.write_text(settings_file(measured, plan))
        click.echo(f"\nwrote {output}: novacron serve --config {output}")


def render(measured: Sensitivity, plan: PrecisionPlan) -> str:
    """As a table for people, then what it adds up to."""
    rows = [("matrix", "unrounded", "level", "bytes", "loses (mnat)")]
    for part, level in zip(measured.parts, plan.levels, strict=True):
        loss = None if level is None else part.losses[level]
        rows.append(
            (
                part.name.removeprefix("model."),
                size(part.plain_bytes),
                level or measured.dtype,
                size(part.plain_bytes if loss is None else loss.num_bytes),
                "0" if loss is None else f"{loss.kl.value * _MNAT:.4f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            (f"{first:{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(rest, widths[1:], strict=True)))
        )
        for first, *rest in rows
    ]
    proof = "the least there is" if plan.is_exact else f"at best {plan.least_kl * _MNAT:.3f}"
    lines += [
        "",
        f"Weights  {size(plan.weight_bytes)} of {size(plan.budget_bytes)}, norms and biases "
        f"({size(measured.other_bytes)}) included",
        f"Loses    {plan.kl * _MNAT:.3f} thousandths of a nat a token, added up ({proof})",
        f"Measured on {measured.num_tokens:,} tokens of {measured.num_documents:,} documents "
        f"({measured.corpus})",
    ]
    return "\n".join(lines)


def settings_file(measured: Sensitivity, plan: PrecisionPlan) -> str:
    """The plan as a configuration file."""
    settings = {
        "quantization": "none",
        "quantization_group_size": measured.group_size,
        "quantization_layers": list(plan.overrides(measured.parts)),
    }
    return (
        f"# {size(plan.weight_bytes)} of weights; measured part by part, they lose "
        f"{plan.kl * _MNAT:.3f} mnat a token.\n"
        f"# Made by novacron quantize-plan for the model {measured.model_version}, held in "
        f"{measured.dtype}.\n{yaml.safe_dump(settings, sort_keys=False)}"
    )


def _levels(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if parse_precision(name) is None]:
        raise ConfigError(
            f"--levels has {', '.join(map(repr, unknown))}: choose among {', '.join(LEVELS)}, "
            "whole numbers also with the size of their groups: int4/64."
        )
    return names


def _documents(
    settings: Settings, corpus: Path | None, count: int, window: int, tasks: str, seed: int
) -> tuple[Document, ...]:
    from novacron.bench.asking import task_names
    from novacron.bench.corpus import demo_documents, file_documents
    from novacron.engine.tokenization import Tokenizer

    model = settings.engine.model
    tokenizer = Tokenizer.load(Path(model.tokenizer or resolve_model_path(model.model)))
    if corpus is None:
        return demo_documents(tokenizer, count, seed, task_names(tuple(tasks.split(","))))
    return file_documents(tokenizer, corpus, window=window, count=count)


def _measure(
    settings: Settings,
    levels: Sequence[str],
    documents: Sequence[Document],
    corpus: Path | None,
    kept: Path | None,
) -> Sensitivity:
    from novacron.bench.corpus import digest
    from novacron.executor.sensitivity import measure_sensitivity
    from novacron.quality.document_losses import LossJournal

    source = "chats of the tasks" if corpus is None else corpus.name
    name = f"{source}, {digest(documents)}"
    version, dtype, group_size = identity_of(settings)
    identity = {
        "model": version, "dtype": dtype, "group_size": group_size, "corpus": name,
        "levels": ",".join(levels),
    }  # fmt: skip
    part = None if kept is None else kept.with_name(f"{kept.name}.part")
    journal = LossJournal(part, identity)
    console = Console(stderr=True)
    if journal.runs:
        console.print(f"going on with what is in {part}")
    with console.status("measuring") as status:
        measured = measure_sensitivity(
            settings.engine,
            resolve_model_path(settings.engine.model.model),
            documents,
            levels,
            corpus=name,
            progress=lambda fraction: status.update(f"measuring: {fraction:.1%}"),
            journal=journal,
        )
    if kept is not None:
        kept.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=1) + b"\n")
    journal.remove()
    return measured
