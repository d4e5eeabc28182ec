from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from novacron.audit.lane_writer import LaneWriter, Rotation
from novacron.audit.record import AuditRecord


def record(number: int, tenant: str = "acme") -> AuditRecord:
    return AuditRecord(
        time=1000.0 + number, kind="inference", tenant=tenant, request_id=f"r{number}", status=200
    )


def write(folder: Path, records: Sequence[AuditRecord], max_bytes: int = 1200) -> LaneWriter:
    """A log of some files, one append for each record. Its writer, which is open."""
    writer = LaneWriter(folder, Rotation(max_bytes=max_bytes))
    for one in records:
        writer.append((one,))
    writer.sync()
    return writer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def written(folder: Path) -> Callable[..., Path]:
    def make(records: Sequence[AuditRecord]) -> Path:
        write(folder, records).close()
        return folder

    return make
