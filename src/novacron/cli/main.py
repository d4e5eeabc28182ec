"""novacron: the command line.

A command's module is imported when the command is called, so that `--help` is quick and each role
loads only what it needs. Errors of NovaCron become one line on standard error and an exit code:
2 for settings and usage, 1 for everything else, 130 after Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Mapping

import click

from novacron.cli.lazy_group import Entry, LazyGroup
from novacron.errors import ConfigError, NovaCronError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


_COMMANDS: Mapping[str, Entry] = {
    "serve": Entry("novacron.cli.serve:serve", "Serve a model over HTTP."),
    "engine": Entry("novacron.cli.engine:engine", "Run an engine for a server on another host."),
    "chat": Entry("novacron.cli.chat:chat", "Talk to a model in the terminal."),
    "complete": Entry("novacron.cli.complete:complete", "Continue one text."),
    "run-batch": Entry("novacron.cli.run_batch:run_batch", "Work off a file of requests."),
    "bench": Entry("novacron.bench.cli:bench", "Measure a server or the engine."),
    "config": Entry("novacron.cli.config:config", "Explain the settings in effect."),
    "quantize": Entry("novacron.cli.quantize:quantize", "Hold a model in other precisions."),
    "plan": Entry("novacron.cli.plan:plan", "Show what fits into memory, without loading."),
    "quantize-plan": Entry(
        "novacron.cli.quantize_plan:quantize_plan", "Choose the precision of each matrix."
    ),
    "cache": Entry(
        "novacron.cli.cache.group:cache", "Look into the KV cache, and try its settings on traces."
    ),
    "cluster": Entry(
        "novacron.cli.cluster.group:cluster",
        "See the replicas of a server, drain and restart them.",
    ),
    "admin": Entry("novacron.cli.admin.group:admin", "Tenants, users, keys, quotas and usage."),
    "audit": Entry("novacron.cli.audit.group:audit", "Check, export and purge the audit log."),
    "encryption": Entry(
        "novacron.cli.encryption.group:encryption", "Keys of what is kept encrypted."
    ),
    "guard": Entry("novacron.cli.guard:guard", "Try guardians on a text."),
    "doctor": Entry("novacron.cli.doctor:doctor", "Check that this machine can serve."),
    "validate": Entry("novacron.cli.validate:validate", "Check that a running server works."),
    "version": Entry("novacron.cli.version:version", "Show the versions of what is installed."),
}


class _Failed(click.ClickException):
    exit_code = EXIT_FAILED


class _Misused(click.ClickException):
    exit_code = EXIT_USAGE


class _CommandGroup(LazyGroup):
    entries = _COMMANDS

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise _Misused(str(error)) from error
        except NovaCronError as error:
            raise _Failed(str(error)) from error
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)


@click.group(cls=_CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="novacron")
def cli() -> None:
    """Serve large language models on the machines you have.

    `novacron serve` starts the bundled model on http://127.0.0.1:8080; `novacron chat` talks to it.
    """


def main() -> None:
    cli(prog_name="novacron")


if __name__ == "__main__":
    main()
