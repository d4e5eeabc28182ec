from __future__ import annotations

from pathlib import Path

from tests.unit.audit.conftest import record, write

from novacron.audit.purge import purge
from novacron.audit.reading import Wanted, oldest_first
from novacron.audit.verification import verify


def tenants(folder: Path) -> list[str]:
    return [e.record.tenant for e in oldest_first(folder, Wanted(kind="inference"))]


def test_a_purge_takes_out_one_tenants_old_records_and_leaves_the_chain_whole(folder: Path) -> None:
    tenants_in_turn = ["secretive", "other"] * 6
    writer = write(folder, [record(n, t) for n, t in enumerate(tenants_in_turn)])
    head = writer.last
    writer.close()
    assert purge(folder, "secretive", 1008.0).num_purged == 4
    assert tenants(folder).count("secretive") == 2
    assert tenants(folder).count("other") == 6
    report = verify(folder, (head.hash,))
    assert report.is_whole, report.breaks
    assert report.num_purged == 4
    assert purge(folder, "secretive", 1008.0).num_purged == 0
    [told] = [e.record.purged_tenant for e in oldest_first(folder, Wanted(kind="purge"))][:1]
    assert told == "secretive"


def test_the_file_that_a_server_writes_is_left_to_a_later_purge(folder: Path) -> None:
    writer = write(folder, [record(n) for n in range(9)])
    done = purge(folder, "acme", 2000.0)
    assert done.num_purged + done.num_left == 9
    assert done.num_left > 0
    writer.append((record(9),))
    writer.close()
    assert verify(folder).is_whole
    assert purge(folder, "acme", 2000.0).num_purged == done.num_left + 1
    assert tenants(folder) == []
    assert verify(folder).is_whole
