from __future__ import annotations

import json
from pathlib import Path

from novacron.config.explain import explain, render_json, render_table
from novacron.config.keys import KEYS
from novacron.config.load import load


def test_every_setting_has_a_row_with_value_origin_and_meaning() -> None:
    rows = explain(load(file=None, env={"NOVACRON_PORT": "9000"}, flags={}))
    assert [row.key for row in rows] == [key.path for key in KEYS.values()]
    by_key = {row.key: row for row in rows}
    port = by_key["server.port"]
    assert (port.value, port.text, str(port.origin)) == (9000, "9000", "env NOVACRON_PORT")
    assert port.meaning == KEYS["port"].meaning


def test_values_are_written_as_one_would_write_them() -> None:
    flags = {"kv_cache_memory": 2**32, "served_model_name": ("a", "b")}
    rows = {row.key: row.text for row in explain(load(file=None, env={}, flags=flags))}
    assert rows["cache.kv_cache_memory"] == "4Gi"
    assert rows["server.max_body_bytes"] == "16Mi"
    assert rows["server.shutdown_timeout"] == "30s"
    assert rows["model.served_model_name"] == "a,b"
    assert rows["cache.enable_prefix_caching"] == "true"
    assert rows["model.max_model_len"] == "-"
    assert rows["model.num_threads"] == "0"


def test_secrets_are_masked_in_every_form() -> None:
    settings = load(file=None, env={"NOVACRON_API_KEY": "sk-one,sk-two"}, flags={})
    rows = explain(settings)
    for shown in (render_table(rows), render_json(rows), repr(rows), repr(settings)):
        assert "sk-" not in shown
    assert {row.key: row.text for row in rows}["server.api_key"] == "***,***"


def test_keys_without_effect_are_listed_as_such(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("llm_engine: {performance: {target_latency: 200ms}}")
    last = explain(load(file=file, env={}, flags={}))[-1]
    assert last.key == "llm_engine.performance.target_latency"
    assert last.text == "200ms"
    assert last.meaning.startswith("no effect: ")


def test_the_table_has_aligned_columns() -> None:
    lines = render_table(explain(load(file=None, env={}, flags={}))).splitlines()
    assert len(lines) == len(KEYS) + 1
    start = lines[0].index("MEANING")
    assert all(line[start - 1] == " " and line[start] != " " for line in lines)


def test_json_round_trips() -> None:
    rows = json.loads(render_json(explain(load(file=None, env={}, flags={"port": 7}))))
    assert {"key": "server.port", "value": 7, "origin": "flag", "origin_detail": "--port",
            "meaning": KEYS["port"].meaning} in rows  # fmt: skip
