"""novacron doctor: can this machine serve, how well, and what would help."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import click

from novacron.cli import machine
from novacron.cli.checks import Check, Verdict, show
from novacron.cli.listener import bind
from novacron.cli.options import serving_command
from novacron.cli.wording import size
from novacron.config.load import Settings
from novacron.errors import ConfigError, ModelLoadError

_LITTLE_MEMORY = 2 * 2**30
_LITTLE_DISK = 5 * 2**30
_HELD_BYTES = 2  # of a weight that a quantised checkpoint holds in fewer


@serving_command()
@click.pass_context
def doctor(ctx: click.Context, /, settings: Settings) -> None:
    """Check that `novacron serve` with the same arguments can work on this machine.

    Exit code 1 if something would keep it from working; warnings do not count.
    """
    click.echo("Looking at this machine ...")
    exit_code = show(_examine(settings))
    click.echo("Something is missing." if exit_code else "This machine can serve.")
    ctx.exit(exit_code)


def _examine(settings: Settings) -> Iterator[Check]:
    yield _python()
    yield from _torch(settings.engine.model.device)
    yield _processor()
    yield _memory()
    yield from _model(settings)
    yield _port(settings.server.host, settings.server.port)


def _python() -> Check:
    return Check(Verdict.PASS, "Python", machine.python_version())


def _torch(device: str) -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check(Verdict.FAIL, "PyTorch", f"cannot be imported: {error}", "Run `make setup`.")
        return
    build = f"{torch.__version__}, {'CUDA ' + torch.version.cuda if torch.version.cuda else 'CPU'}"
    yield Check(Verdict.PASS, "PyTorch", build)
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            finding = f"{properties.name}, {size(properties.total_memory)}"
            yield Check(Verdict.PASS, "GPU", finding)
    elif device == "cuda":
        remedy = "Install a driver and a CUDA build of PyTorch, or choose --device cpu."
        yield Check(Verdict.FAIL, "GPU", "none that PyTorch can use", remedy)
    elif machine.has_nvidia_device():
        remedy = "This PyTorch cannot use it: install a CUDA build of PyTorch."
        yield Check(Verdict.WARN, "GPU", "there is one, but it would not be used", remedy)
    else:
        yield Check(Verdict.PASS, "GPU", "none; the CPU is used")


def _processor() -> Check:
    sets = machine.instruction_sets()
    finding = (
        f"{machine.num_cores()} of {machine.num_threads()} threads usable, "
        f"{', '.join(sets) or 'no vector instructions known to us'}"
    )
    if machine.is_slow(sets):
        remedy = "Without AVX2 or NEON expect a fraction of the usual speed."
        return Check(Verdict.WARN, "CPU", finding, remedy)
    return Check(Verdict.PASS, "CPU", finding)


def _memory() -> Check:
    memory = machine.memory()
    finding = f"{size(memory.available)} free of {size(memory.total)}"
    if memory.available < _LITTLE_MEMORY:
        remedy = "Enough for the bundled model only. End other programs, or raise the limit."
        return Check(Verdict.WARN, "Memory", finding, remedy)
    return Check(Verdict.PASS, "Memory", finding)


def _model(settings: Settings) -> Iterator[Check]:
    from novacron.engine.model_path import resolve_model_path
    from novacron.engine.tokenization import Tokenizer

    model = settings.engine.model
    try:
        path = resolve_model_path(model.model)
        yield Check(Verdict.PASS, "Model", f"{model.model or 'the bundled one'} in {path}")
        yield _weights(path)
        template = Path(model.chat_template) if model.chat_template else None
        tokenizer = Tokenizer.load(Path(model.tokenizer or path), template)
    except ModelLoadError as error:
        yield Check(Verdict.FAIL, "Model", str(error))
        return
    yield Check(Verdict.PASS, "Tokenizer", f"{tokenizer.vocab_size} tokens")
    if not tokenizer.has_chat_template:
        remedy = "Chat needs one: give it with --chat-template FILE."
        yield Check(Verdict.WARN, "Chat template", "none", remedy)
    yield _disk(path)


def _weights(path: Path) -> Check:
    """Whether we know the architecture, the files are whole, and they would fit into memory."""
    from novacron.models.model_files import read_model_files
    from novacron.models.registry import find_family

    model = read_model_files(path)
    architecture, _ = find_family(model.config)
    checkpoint = model.open_weights()
    weights = sum(file.stat().st_size for file in checkpoint.files)
    available = machine.memory().available
    finding = f"{architecture}, {size(weights)} in {len(checkpoint.files)} file(s)"
    if model.rounded_by:
        weights = _HELD_BYTES * sum(prod(checkpoint.shape(name)) for name in checkpoint.names)
        finding += f", {size(weights)} in 16 bits"
    if weights > available:
        remedy = f"Only {size(available)} of memory are free. Take a smaller model."
        return Check(Verdict.WARN, "Weights", finding, remedy)
    return Check(Verdict.PASS, "Weights", finding)


def _disk(path: Path) -> Check:
    free = machine.free_disk(path)
    finding = f"{size(free)} free beside the model"
    if free < _LITTLE_DISK:
        return Check(Verdict.WARN, "Disk", finding, "Make room before downloading models.")
    return Check(Verdict.PASS, "Disk", finding)


def _port(host: str, port: int) -> Check:
    try:
        bind(host, port).close()
    except ConfigError as error:
        return Check(Verdict.FAIL, "Address", str(error))
    return Check(Verdict.PASS, "Address", f"{host} port {port} is free")
