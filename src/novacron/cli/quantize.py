"""novacron quantize: what a choice of precision makes of a model, and a folder that holds it."""

from __future__ import annotations

from pathlib import Path

import click

from novacron.cli.options import serving_command
from novacron.cli.wording import size
from novacron.config.engine import EngineConfig
from novacron.config.load import Settings
from novacron.config.model import ModelConfig
from novacron.config.quantities import parse_bytes
from novacron.errors import ConfigError

_STEPS = 1000  # of the progress bar


@serving_command("model", "cache")
@click.option(
    "--quantization",
    "--profile",
    "-q",
    help="memory_critical, balanced, quality_critical, or one level for all: int8, int4.",
)
@click.option(
    "--method",
    type=click.Choice(["rtn", "gptq"]),
    default="rtn",
    show_default=True,
    help="How to choose numbers of four bits: the nearest, or by what matters for inputs as in "
    "--calibration.",
)
@click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="For gptq: a text file; of the bundled model, chats are known.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write; goes on if begun.")
@click.option("--explain", is_flag=True, help="Show levels, bytes and reasons; write nothing.")
@click.option(
    "--sensitivity",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --explain: what novacron quantize-plan measured, to say what the choice loses; of "
    "the bundled model, it is known.",
)
@click.option("--shape", help="With --explain: a Llama of this size instead of MODEL, such as 8b.")
@click.option("--shard-size", default="2Gi", show_default=True, help="Largest file to write.")
def quantize(
    settings: Settings,
    *,
    method: str,
    calibration: Path | None,
    out: Path | None,
    explain: bool,
    sensitivity: Path | None,
    shape: str | None,
    shard_size: str,
) -> None:
    """Write MODEL in other precisions into a folder, or explain what they make of it.

    The folder is an ordinary one of safetensors, in the format of compressed-tensors: `novacron
    serve` computes with its weights as they are. Ended at any point, the same command goes on.
    Settings of the KV cache are for --explain: a folder tells the server only its profile's.
    """
    model = settings.engine.model
    if sensitivity is not None and (shape is not None or not explain):
        raise ConfigError("--sensitivity goes with --explain MODEL.")
    if shape is not None:
        if not explain or model.model or out is not None:
            raise ConfigError("--shape goes with --explain, without MODEL and --out.")
        _explain_shape(settings.engine, shape)
    elif explain:
        _explain(settings, sensitivity)
    elif out is None:
        raise ConfigError("Say what to do: --explain, or --out FOLDER.")
    else:
        for key in ("kv_cache_dtype", "kv_cache_dtype_layers"):
            if settings.origins[key].kind == "flag":
                raise ConfigError(
                    f"{key} cannot be written into a folder: give it to novacron serve, or choose "
                    "a profile, which has a precision for the KV cache, too."
                )
        if calibration is not None and method != "gptq":
            raise ConfigError("--calibration is for --method gptq.")
        _write(model, out, parse_bytes(shard_size), method == "gptq", calibration)


def _explain(settings: Settings, sensitivity: Path | None) -> None:
    from novacron.cli.precision_table import render
    from novacron.cli.sensitivity_file import known_sensitivity, read_sensitivity
    from novacron.engine.model_path import resolve_model_path
    from novacron.executor.precision_study import study_model

    engine = settings.engine
    path = resolve_model_path(engine.model.model)
    study = study_model(engine.model, engine.cache, path)
    if sensitivity is None:
        measured = known_sensitivity(settings)
    else:
        measured = read_sensitivity(settings, sensitivity)
    click.echo(render(study, measured))


def _explain_shape(engine: EngineConfig, name: str) -> None:
    from novacron.bench.model_shapes import choose_shape
    from novacron.bench.random_model import llama_config
    from novacron.cli.precision_table import render
    from novacron.executor.precision_study import study_shape

    config = llama_config(choose_shape(name, {}), "bfloat16")
    click.echo(render(study_shape(engine.model, engine.cache, name, config)))


def _write(
    model: ModelConfig, out: Path, shard_bytes: int, has_texts: bool, calibration: Path | None
) -> None:
    from novacron.cli.calibration_texts import calibration_texts
    from novacron.cli.tokenizer_files import tokenizer_files
    from novacron.engine.model_path import resolve_model_path
    from novacron.executor.rewriting import rewrite

    path = resolve_model_path(model.model)
    texts = calibration_texts(model, path, calibration) if has_texts else None
    with click.progressbar(length=_STEPS, label=f"Writing {out}") as bar:
        rewrite(
            model,
            path,
            out,
            shard_bytes=shard_bytes,
            calibration=texts,
            tokenizer_texts=tokenizer_files(model, path),
            progress=lambda fraction: bar.update(int(fraction * _STEPS) - bar.pos),
        )
    after, before = _weight_bytes(out), _weight_bytes(path)
    click.echo(f"{size(after)} of weights, which were {size(before)}. Now: novacron serve {out}")


def _weight_bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)
