"""novacron quantize: what a choice of precision makes of a model, and a folder that holds it."""

from __future__ import annotations

import click

from novacron.cli.options import serving_command
from novacron.config.load import Settings
from novacron.errors import ConfigError


@serving_command("model")
@click.option(
    "--quantization",
    "--profile",
    "-q",
    help="memory_critical, balanced, quality_critical, or one level for all: int8, int4, fp8, "
    "fp16, bf16, fp32.",
)
@click.option("--explain", is_flag=True, help="Show levels, bytes and reasons; write nothing.")
@click.option(
    "--shape", help="With --explain: a model of random weights instead of MODEL, by size."
)
def quantize(settings: Settings, *, explain: bool, shape: str | None) -> None:
    """Write MODEL in other precisions into a folder, or explain what they would make of it.

    Patterns of --quantization-layers name matrices as in a Llama checkpoint. Reads no weights to
    explain.
    """
    from novacron.cli.precision_table import render
    from novacron.executor.precision_study import study_model, study_shape

    model = settings.engine.model
    if not explain:
        raise ConfigError("Say what to do: --explain.")
    if shape is None:
        from novacron.engine.model_path import resolve_model_path

        click.echo(render(study_model(model, resolve_model_path(model.model))))
        return
    if model.model:
        raise ConfigError("Give MODEL or --shape, not both.")
    from novacron.bench.model_shapes import choose_shape
    from novacron.bench.random_model import llama_config

    click.echo(render(study_shape(model, shape, llama_config(choose_shape(shape, {}), "bfloat16"))))
