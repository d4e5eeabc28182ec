"""Whatever is done to a log behind its back, verify finds it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.audit.conftest import record, write

from novacron.audit.files import write_head
from novacron.audit.lane_writer import LaneWriter
from novacron.audit.purge import purge
from novacron.audit.verification import verify


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One with everything: several files and lanes, a torn end, purged records."""
    folder = tmp_path_factory.mktemp("audit")
    first = write(folder, [record(n) for n in range(8)])
    second = write(folder, [record(n, "other") for n in range(4)])
    for writer in (first, second):
        writer.close()
    newest = max(folder.glob("0-*.jsonl"))
    newest.write_bytes(newest.read_bytes() + b'{"seq":99,"prev":"torn')
    write(folder, [record(n) for n in range(8, 11)]).close()
    assert purge(folder, "acme", 1003.0).num_purged == 3
    report = verify(folder)
    assert report.is_whole, report.breaks
    assert (report.num_purged, report.num_torn_bytes) == (3, 22)
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.suffix in (".jsonl", ".head")
    }


def place(folder: Path, log: dict[str, bytes]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in log.items():
        (folder / name).write_bytes(content)
    return folder


@settings(max_examples=300)
@given(data=st.data())
def test_a_change_of_any_byte_is_found(
    data: st.DataObject, log: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = data.draw(st.sampled_from(sorted(log)))
    content = bytearray(log[name])
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    folder = place(tmp_path_factory.getbasetemp() / "changed", {**log, name: bytes(content)})
    assert not verify(folder).is_whole


@settings(max_examples=150)
@given(data=st.data())
def test_bytes_put_in_or_taken_out_are_found(
    data: st.DataObject, log: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = data.draw(st.sampled_from(sorted(log)))
    content = log[name]
    at = data.draw(st.integers(0, len(content)))
    if data.draw(st.booleans()):
        changed = content[:at] + data.draw(st.binary(min_size=1, max_size=5)) + content[at:]
    else:
        changed = content[:at] + content[at + data.draw(st.integers(1, 800)) :]
    folder = place(tmp_path_factory.getbasetemp() / "cut", {**log, name: changed})
    assert verify(folder).is_whole == (changed == content)


@given(data=st.data())
@settings(max_examples=100)
def test_lines_deleted_doubled_or_in_another_order_are_found(
    data: st.DataObject, log: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = data.draw(st.sampled_from(sorted(n for n in log if n.endswith(".jsonl"))))
    lines = log[name].splitlines(keepends=True)
    others = [line for n in log for line in log[n].splitlines(keepends=True) if n.endswith("jsonl")]
    kind = data.draw(st.sampled_from(["delete", "put", "swap"]))
    at = data.draw(st.integers(0, len(lines) - 1))
    if kind == "delete":
        lines.pop(at)
    elif kind == "put":
        lines.insert(at, data.draw(st.sampled_from(others)))
    else:
        other = data.draw(st.integers(0, len(lines) - 1))
        lines[at], lines[other] = lines[other], lines[at]
    changed = b"".join(lines)
    folder = place(tmp_path_factory.getbasetemp() / "lines", {**log, name: changed})
    assert verify(folder).is_whole == (changed == log[name])


def test_files_deleted_or_exchanged_are_found(log: dict[str, bytes], tmp_path: Path) -> None:
    for name in log:
        left = {other: content for other, content in log.items() if other != name}
        assert not verify(place(tmp_path / "log", left)).is_whole, name
    exchanged = {**log, "0-00000001.jsonl": log["0-00000002.jsonl"]}
    exchanged["0-00000002.jsonl"] = log["0-00000001.jsonl"]
    report = verify(place(tmp_path / "log", exchanged))
    assert (report.breaks[0].file, report.breaks[0].line) == ("0-00000001.jsonl", 1)


def test_the_first_broken_place_is_named(folder: Path) -> None:
    write(folder, [record(n) for n in range(5)], max_bytes=10**6).close()
    [path] = folder.glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[3].replace(b"r2", b"r9"), *lines[4:]]))
    [broken] = verify(folder).breaks
    assert (broken.file, broken.line) == (path.name, 4)
    path.write_bytes(b"".join([*lines[:2], *lines[4:]]))
    [broken] = verify(folder).breaks
    assert str(broken) == f"{path.name}:3: records 3 to 4 are missing before record 5"


def test_a_chain_cut_with_its_head_is_found_by_a_head_kept_elsewhere(folder: Path) -> None:
    writer = write(folder, [record(n) for n in range(3)], max_bytes=10**6)
    early, late = writer.last, None
    writer.append((record(3),))
    writer.sync()
    late = writer.last
    writer.close()
    assert verify(folder, (early.hash, late.hash)).is_whole
    [path] = folder.glob("*.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert "gone or changed" in verify(folder).breaks[0].what
    write_head(folder, 0, early)
    assert verify(folder).is_whole, "from the inside, nothing is wrong"
    assert verify(folder, (early.hash,)).is_whole
    assert not verify(folder, (late.hash,)).is_whole


def test_a_cut_stays_visible_when_a_server_goes_on_behind_it(folder: Path) -> None:
    write(folder, [record(n) for n in range(5)], max_bytes=10**6).close()
    [path] = folder.glob("*.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    write(folder, [record(9)]).close()
    [broken] = verify(folder).breaks
    assert broken.what == "records 5 to 6 are missing before record 7"


def test_a_record_changed_before_a_restart_is_not_taken_for_a_torn_end(folder: Path) -> None:
    write(folder, [record(n) for n in range(5)], max_bytes=10**6).close()
    [path] = folder.glob("*.jsonl")
    for old, new in ((b"r4", b"r7"), (b"r2", b"r7")):  # the last line, and one amidst
        path.write_bytes(path.read_bytes().replace(old, new))
        LaneWriter(folder).close()
        assert not verify(folder).is_whole


def test_a_tombstone_that_no_purge_made_is_found(folder: Path) -> None:
    write(folder, [record(n) for n in range(5)], max_bytes=10**6).close()
    shutil.copytree(folder, folder.parent / "copy")
    purge(folder.parent / "copy", "acme", 1002.0)
    shutil.copy(folder.parent / "copy" / "0-00000001.jsonl", folder)
    [broken] = verify(folder).breaks
    assert (broken.line, broken.what) == (2, "record 2 was taken out, and no purge says so")


def test_a_log_that_is_written_meanwhile_is_whole(folder: Path) -> None:
    writer = write(folder, [record(n) for n in range(3)])
    newest = max(folder.glob("0-*.jsonl"))
    with newest.open("ab") as file:
        file.write(b'{"seq":7,"pr')  # as far as the system has got with it
    assert verify(folder).is_whole
    writer.close()
    [broken] = verify(folder).breaks
    assert "12 bytes that are no record" in broken.what
