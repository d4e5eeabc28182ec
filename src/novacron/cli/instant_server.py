"""`novacron serve` with engines that compute nothing: what `novacron bench gateway` measures.

Run as `python -m novacron.cli.instant_server`, with the settings of `novacron serve`. All but the
engines is what serves: the listener, identity, accounts, quotas, routing.
"""

from __future__ import annotations

from dataclasses import replace

import click

from novacron.bench.instant_engine import InstantEngine
from novacron.cli.accounts import open_accounts
from novacron.cli.listener import bind
from novacron.cli.options import serving_command
from novacron.cli.serve_loop import run
from novacron.cluster.replicas_client import ReplicasClient
from novacron.config.engine import EngineConfig
from novacron.config.load import Settings
from novacron.demo import bundled_model_path
from novacron.engine.recovering_client import RecoveringClient
from novacron.engine.tokenization import Tokenizer


@serving_command()
@click.pass_context
def serve(ctx: click.Context, /, settings: Settings) -> None:
    """Serve engines that answer at once, as many as data_parallel_size says."""
    model = replace(settings.engine.model, served_model_name=("instant",))
    settings = replace(settings, engine=replace(settings.engine, model=model))
    listener = bind(settings.server.host, settings.server.port)
    tokenizer = Tokenizer.load(bundled_model_path())

    def make(name: str, config: EngineConfig) -> InstantEngine:
        return InstantEngine(tokenizer)

    client = RecoveringClient(
        ReplicasClient(settings.engine, make),
        timeout_s=settings.server.recovery_timeout,
        most_waiting=settings.engine.scheduler.max_queued_requests,
        seed=settings.engine.model.seed,
    )
    ctx.exit(run(client, settings, listener, open_accounts(settings.server)))


if __name__ == "__main__":
    serve()
