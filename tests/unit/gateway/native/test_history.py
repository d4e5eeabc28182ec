from __future__ import annotations

from novacron.config.server import ServerConfig
from novacron.gateway.calls import Calls
from novacron.gateway.native.history import History
from novacron.gateway.served_model import ServedModel
from novacron.gateway.service import Service
from novacron.observability.metrics import Metrics
from novacron.testing.clock import FakeClock
from novacron.testing.fake_engine_client import FakeEngineClient


def test_means_are_of_their_interval_and_stay_when_nothing_comes(
    client: FakeEngineClient,
) -> None:
    metrics = Metrics()
    service = Service(
        client=client,
        config=ServerConfig(),
        model=ServedModel(client, ("fake",), 0),
        metrics=metrics,
        calls=Calls(client, metrics),
        worker_pids=tuple,
    )
    clock = FakeClock()
    history = History(service, clock)
    clock.advance(5.0)
    history.sample()
    metrics.inter_token.observe(0.010, 4)
    metrics.generation_tokens.observe(4)
    clock.advance(5.0)
    history.sample()
    metrics.inter_token.observe(0.030, 1)
    clock.advance(5.0)
    history.sample()
    clock.advance(5.0)
    told = history.inference_metrics()
    assert told.latency.avg_per_token_latency == (10.0, 30.0, 30.0)
    assert told.throughput.tokens_per_second == (0.0, 0.8, 0.0, 0.0)
    assert told.quality_metrics.quality_score == ()
