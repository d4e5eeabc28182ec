from __future__ import annotations

from novacron.bench.http_client import HttpClient
from novacron.bench.server_metrics import (
    MetricsSnapshot,
    growth,
    mean_step_s,
    parse,
    request_parts_s,
    snapshot,
)
from novacron.testing.fake_openai_server import FakeOpenAIServer

TEXT = """# TYPE novacron_steps counter
novacron_steps_total{{model_name="m"}} {steps}
# TYPE novacron_step_seconds counter
novacron_step_seconds_total{{model_name="m"}} {seconds}
# TYPE vllm:request_prefill_time_seconds histogram
vllm:request_prefill_time_seconds_bucket{{model_name="m",le="+Inf"}} {steps}
vllm:request_prefill_time_seconds_count{{model_name="m"}} {steps}
vllm:request_prefill_time_seconds_sum{{model_name="m"}} {seconds}
# TYPE novacron_startup_phase_seconds gauge
novacron_startup_phase_seconds{{phase="import"}} 0.5
novacron_startup_phase_seconds{{phase="weights"}} 0.25
"""


def _at(steps: int, seconds: float) -> MetricsSnapshot:
    return parse(TEXT.format(steps=steps, seconds=seconds))


def test_what_grew_between_two_moments() -> None:
    before, after = _at(10, 1.0), _at(30, 1.5)
    assert growth(before, after, "novacron_steps_total") == 20
    assert mean_step_s(before, after) == 0.025
    assert request_parts_s(before, after) == {"prefill": 0.025}


def test_what_is_not_known_or_did_not_happen() -> None:
    before = _at(10, 1.0)
    assert mean_step_s(before, before) is None
    assert request_parts_s(before, before) == {}
    assert growth(before, MetricsSnapshot({}), "novacron_steps_total") is None


def test_labels_are_told_apart() -> None:
    phases = _at(1, 1).by_label("novacron_startup_phase_seconds", "phase")
    assert phases == {"import": 0.5, "weights": 0.25}


async def test_a_server_is_asked(server: FakeOpenAIServer) -> None:
    client = HttpClient(server.url)
    assert (await snapshot(client)).total("novacron_steps_total") == 0
    client.close()
