from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from novacron.audit.lane_writer import LaneWriter
from novacron.audit.record import AuditRecord
from novacron.cli.audit_log import open_audit
from novacron.cli.main import cli
from novacron.config.server import ServerConfig
from novacron.errors import ConfigError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["audit", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "novacron" / "audit"
    writer = LaneWriter(folder)
    writer.append(
        [
            AuditRecord(time=86_400.0 * day, kind="inference", tenant=tenant, route="=1+1")
            for day in range(4)
            for tenant in ("acme", "other")
        ]
    )
    writer.close()
    return folder


def test_verify_tells_where_a_log_is_broken(folder: Path, tmp_path: Path) -> None:
    heads = tmp_path / "heads"
    whole = run("verify", folder, "--save-heads", heads)
    assert (whole.exit_code, "The log is whole." in whole.output) == (0, True)
    assert run("verify", "--state-dir", tmp_path, "--heads", heads).exit_code == 0
    assert run("verify", folder, "--head", "f" * 64).exit_code == 1
    assert run("verify", folder, "--head", "short").exit_code == 2
    path = folder / "0-00000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b"acme", b"acne", 1))
    broken = run("verify", folder)
    assert (broken.exit_code, "0-00000001.jsonl:2:" in broken.output) == (1, True)
    assert json.loads(run("verify", folder, "--json").output)["breaks"][0]["line"] == 2
    nothing = run("verify", tmp_path / "nothing")
    assert (nothing.exit_code, "no audit log" in nothing.output) == (2, True)


def test_export_writes_lines_of_json_or_csv(folder: Path) -> None:
    chosen = ("--tenant", "acme", "--since", "1970-01-02", "--until", "1970-01-04T00:00")
    lines = run("export", folder, *chosen).output.splitlines()
    assert [json.loads(line)["time"] for line in lines] == [86_400.0, 2 * 86_400.0]
    rows = list(csv.DictReader(io.StringIO(run("export", folder, "--format", "csv").output)))
    assert len(rows) == 9
    assert rows[1]["route"] == "'=1+1", "no formula"
    assert run("export", folder, "--since", "yesterday").exit_code == 2


def test_purge_takes_out_old_records_and_the_log_is_whole(folder: Path) -> None:
    assert "Purged 2 " in run("purge", folder, "--tenant", "acme", "--before", "1970-01-03").output
    assert len(run("export", folder, "--tenant", "acme", "--kind", "inference").output.split()) == 2
    assert run("verify", folder).exit_code == 0


def test_a_log_is_kept_by_servers_that_ask_who_calls_or_can_be_reached(tmp_path: Path) -> None:
    server = ServerConfig(state_dir=str(tmp_path))
    reachable = replace(server, host="0.0.0.0")
    assert open_audit(server, asks_who_calls=False) is None
    assert open_audit(replace(reachable, audit_log="off"), asks_who_calls=True) is None
    for config, asks in ((server, True), (reachable, False)):
        opened = open_audit(config, asks_who_calls=asks)
        assert opened is not None
        assert opened.folder == tmp_path / "novacron" / "audit"
    named = open_audit(replace(server, audit_log=str(tmp_path / "x")), asks_who_calls=False)
    assert named is not None
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--audit-log off"):
        open_audit(replace(server, audit_log=str(tmp_path / "file")), asks_who_calls=False)
