"""novacron: the command line.

A command's module is imported when the command is called, so that `--help` is quick and each role
loads only what it needs. Errors of NovaCron become one line on standard error and an exit code:
2 for settings and usage, 1 for everything else, 130 after Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple

import click

from novacron.errors import ConfigError, NovaCronError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class _Entry(NamedTuple):
    target: str  # module:attribute
    help: str


_COMMANDS: Mapping[str, _Entry] = {
    "serve": _Entry("novacron.cli.serve:serve", "Serve a model over HTTP."),
    "chat": _Entry("novacron.cli.chat:chat", "Talk to a model in the terminal."),
    "complete": _Entry("novacron.cli.complete:complete", "Continue one text."),
    "run-batch": _Entry("novacron.cli.run_batch:run_batch", "Work off a file of requests."),
    "bench": _Entry("novacron.bench.cli:bench", "Measure a server or the engine."),
    "config": _Entry("novacron.cli.config:config", "Explain the settings in effect."),
    "quantize": _Entry("novacron.cli.quantize:quantize", "Hold a model in other precisions."),
    "plan": _Entry("novacron.cli.plan:plan", "Show what fits into memory, without loading."),
    "quantize-plan": _Entry(
        "novacron.cli.quantize_plan:quantize_plan", "Choose the precision of each matrix."
    ),
    "cache": _Entry(
        "novacron.cli.cache.group:cache", "Look into the KV cache, and try its settings on traces."
    ),
    "doctor": _Entry("novacron.cli.doctor:doctor", "Check that this machine can serve."),
    "validate": _Entry("novacron.cli.validate:validate", "Check that a running server works."),
    "version": _Entry("novacron.cli.version:version", "Show the versions of what is installed."),
}


class _Failed(click.ClickException):
    exit_code = EXIT_FAILED


class _Misused(click.ClickException):
    exit_code = EXIT_USAGE


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise _Misused(str(error)) from error
        except NovaCronError as error:
            raise _Failed(str(error)) from error
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="novacron")
def cli() -> None:
    """Serve large language models on the machines you have.

    `novacron serve` starts the bundled model on http://127.0.0.1:8080; `novacron chat` talks to it.
    """


def main() -> None:
    cli(prog_name="novacron")


if __name__ == "__main__":
    main()
