"""Options come from the settings: every one, in every spelling."""

from __future__ import annotations

import json

import pytest

from novacron.cli.options import SettingOption
from novacron.cli.serve import serve
from novacron.config.keys import KEYS


def _explained(novacron, *args: str) -> dict[str, object]:
    result = novacron("config", "explain", "--json", *args)
    assert result.exit_code == 0, result.output
    return {row["key"]: (row["value"], row["origin"]) for row in json.loads(result.stdout)}


def test_every_setting_is_an_option_of_serve() -> None:
    options = [option for option in serve.params if isinstance(option, SettingOption)]
    assert {option.name for option in options} == set(KEYS)
    assert all(option.help for option in options)


@pytest.mark.parametrize(
    ("args", "key", "value"),
    [
        (["--max-num-seqs", "7"], "scheduler.max_num_seqs", 7),
        (["--max_num_seqs", "7"], "scheduler.max_num_seqs", 7),
        (["--max_num_seqs=7"], "scheduler.max_num_seqs", 7),
        (["-c", "512"], "model.max_model_len", 512),
        (["--kv-cache-memory", "1Gi"], "cache.kv_cache_memory", 2**30),
        (["--shutdown-timeout", "1m30s"], "server.shutdown_timeout", 90.0),
        (["--no-enable-prefix-caching"], "cache.enable_prefix_caching", False),
        (["--no_enable_prefix_caching"], "cache.enable_prefix_caching", False),
        (["--access-log"], "server.access_log", True),
        (["--served-model-name", "a,b"], "model.served_model_name", ["a", "b"]),
        (
            ["--served-model-name", "a", "--served-model-name", "b"],
            "model.served_model_name",
            ["a", "b"],
        ),
        (["--dtype", "bf16"], "model.dtype", "bfloat16"),
        (["some/folder"], "model.model", "some/folder"),
        (["--model", "some/folder"], "model.model", "some/folder"),
    ],
)
def test_spellings(novacron, args: list[str], key: str, value: object) -> None:
    assert _explained(novacron, *args)[key] == (value, "flag")


@pytest.mark.parametrize("key", ["", ","])
def test_an_empty_key_does_not_open_the_server(novacron, key: str) -> None:
    result = novacron("config", "explain", "--api-key", key)
    assert result.exit_code == 2
    assert "is empty" in result.output


def test_the_model_is_not_listed_among_the_options(novacron) -> None:
    listed = novacron("serve", "--help").output.split("Options:")[1]
    assert "[MODEL]" not in listed


def test_origins(novacron, monkeypatch, tmp_path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("port: 1000\nmax-num-seqs: 3\nhost: 0.0.0.0\n")
    monkeypatch.setenv("NOVACRON_PORT", "2000")
    monkeypatch.setenv("NOVACRON_MAX_NUM_SEQS", "4")
    rows = _explained(novacron, "--config", str(file), "--port", "3000")
    assert rows["server.port"] == (3000, "flag")
    assert rows["scheduler.max_num_seqs"] == (4, "env")
    assert rows["server.host"] == ("0.0.0.0", "file")
    assert rows["scheduler.max_num_batched_tokens"] == (2048, "default")


def test_secrets_are_hidden(novacron) -> None:
    assert "hunter2" not in novacron("config", "explain", "--api-key", "hunter2").output


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--port", "99999"], "port is 99999"),
        (["--max-num-seqs", "many"], "max_num_seqs is 'many'"),
        (["--dtype", "int3"], "dtype is 'int3'"),
        (["--no-such-thing"], "No such option"),
        (["--config", "absent.yaml"], "absent.yaml"),
        (["folder", "--model", "other"], "The model is given twice"),
    ],
)
def test_bad_settings(novacron, args: list[str], complaint: str) -> None:
    result = novacron("config", "explain", *args)
    assert result.exit_code == 2
    assert complaint in result.output


def test_help_groups_settings_and_shows_defaults(novacron) -> None:
    output = novacron("serve", "--help").output
    titles = ["Options:", "Model:", "KV cache:", "Scheduler:", "Server:"]
    assert [output.index(title) for title in titles] == sorted(map(output.index, titles))
    assert "--port INTEGER" in output
    assert "[default: 8080]" in output
    assert "--dtype [auto|float32|bfloat16|float16]" in output
