"""From settings to the guardians and specialists of a server. Called once, at its start."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from novacron.config.guard import GuardConfig
from novacron.engine.client import EngineClient
from novacron.gateway.call_guard import Watch
from novacron.gateway.guarding import Guarding
from novacron.gateway.observers import Observers
from novacron.gateway.own_voice import OwnVoice
from novacron.gateway.served_model import ServedModel
from novacron.gateway.specialists import Specialist, make_specialists
from novacron.guardians.build import Voices, build_guardian
from novacron.guardians.hook import Post
from novacron.guardians.panel import Panel
from novacron.guardians.verdict_cache import CacheLimits, VerdictCache
from novacron.observability.metrics import Metrics


def make_guarding(
    config: GuardConfig,
    client: EngineClient,
    metrics: Metrics,
    model: ServedModel,
    *,
    post: Post,
) -> Guarding:
    """Raises ConfigError."""
    voice = OwnVoice(client)
    voices = Voices(ask=voice.ask, embed=voice.embed, post=post)
    panel = Panel(
        deadline_s=config.guardian_deadline,
        cache=VerdictCache(CacheLimits(num_entries=config.guardian_cache_entries)),
        pool=ThreadPoolExecutor(1, thread_name_prefix="guardians"),
    )
    totals = metrics.guardians
    observers = Observers(panel, totals)
    return Guarding(
        client=client,
        watch=Watch(panel=panel, observers=observers, totals=totals),
        guardians=[build_guardian(one, voices) for one in config.guardian_list],
        specialists=specialists_of(config, model),
        variant_of=lambda name: model.resolve(name)[1],
    )


def specialists_of(config: GuardConfig, model: ServedModel) -> dict[str, Specialist]:
    """Made known to `model`, so that they are listed and can be asked for. Raises ConfigError."""
    specialists = make_specialists(config.specialist_list, model.names)
    model.add_aliases({name: one.model for name, one in specialists.items()})
    return specialists
