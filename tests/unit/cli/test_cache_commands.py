"""`novacron cache`: over a folder that DiskTier has written, and over a server's answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import Result

from novacron.cli.cache.stat import server_text
from novacron.config.kv_compression import levels_from
from novacron.gateway.native.cache_status import cache_status
from novacron.kv_tiers.codecs.codec import make_codec
from novacron.kv_tiers.compressed_tier import CompressedTier, Shelf, identity_in
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.model_label import ModelLabel, write_label
from novacron.kv_tiers.pin_file import PinFile
from novacron.kv_tiers.pins import PinnedPrefix
from novacron.kv_tiers.record import block_of, record_bytes, seal
from novacron.kv_tiers.segment import SegmentShape
from novacron.kv_tiers.tier import Record
from novacron.records.latency_counts import LatencyCounts
from novacron.records.output import EngineStats, TierStats
from novacron.testing.kv_layouts import make_block, make_layout
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, key_of, make_record, put

LIMIT = 64 * 1024 * 8
PLACES = SegmentShape.within(LIMIT // 8, RECORD_BYTES, IDENTITY).num_places
OTHER = b"another-identity"
LAYOUT = make_layout(num_layers=1, num_heads=1, num_tokens=8, head_dim=16)
Novacron = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two segments of one model, used now, and one of another, used long ago."""
    tier = DiskTier(tmp_path, LIMIT, RECORD_BYTES, IDENTITY)
    put(tier, *range(PLACES + 5))
    tier.close()
    label = ModelLabel(model="small", model_version="v", kv_identity="int8 x", block_size=16)
    write_label(tmp_path, IDENTITY, label)
    known = set(tmp_path.glob("*.kvseg"))
    other = DiskTier(tmp_path, LIMIT, RECORD_BYTES, OTHER)
    other.put([make_record(1)])  # sealed for the first model: it does not check here
    other.close()
    [old] = set(tmp_path.glob("*.kvseg")) - known
    os.utime(old, (1e9, 1e9))
    return tmp_path


@pytest.fixture
def compressed(tmp_path: Path) -> Path:
    """A tier in int8 whose third blocks are kept as they are, and a pin of the first two."""
    label = ModelLabel(model="small", model_version="v", kv_identity="float32 x", block_size=8)
    shelves = []
    for level in levels_from("int8"):
        codec = make_codec(level, LAYOUT)
        identity = identity_in(IDENTITY, level)
        tier = DiskTier(tmp_path, LIMIT, record_bytes(codec.encoded_bytes), identity)
        shelves.append(Shelf(codec, tier))
        write_label(
            tmp_path, identity, msgspec.structs.replace(label, level=level, whole=IDENTITY.hex())
        )
    whole = CompressedTier(shelves, IDENTITY, 0.3, is_one_place=True)
    records = []
    for number in range(9):
        data = np.empty(record_bytes(LAYOUT.block_bytes), np.uint8)
        block = make_block(LAYOUT, number)
        if number % 3 == 2:
            block.view(np.float32)[0] = np.inf
        block_of(data)[:] = block
        seal(data, IDENTITY, key_of(number))
        records.append(Record(key_of(number), data))
    whole.put(records)
    whole.close()
    PinFile(tmp_path, IDENTITY).write(
        (PinnedPrefix(name="p", keys=(key_of(0), key_of(1)), num_tokens=16),)
    )
    return tmp_path


def at(folder: Path) -> tuple[str, str]:
    return ("--kv-disk-path", str(folder))


def listed(novacron: Novacron, folder: Path) -> dict[str, dict[str, object]]:
    result = novacron("cache", "ls", *at(folder), "--json")
    assert result.exit_code == 0, result.output
    return {model["model"]: model for model in json.loads(result.output)}


def test_ls_lists_models_the_last_used_first(novacron: Novacron, folder: Path) -> None:
    models = listed(novacron, folder)
    assert list(models) == ["small", OTHER.hex()[:12]]
    assert (models["small"]["num_blocks"], models["small"]["num_files"]) == (PLACES + 5, 2)
    lines = novacron("cache", "ls", *at(folder)).output.splitlines()
    assert lines[0].split() == ["MODEL", "KV", "PART", "BLOCKS", "FILES", "SIZE", "USED", "PINS"]
    assert lines[1].split()[:5] == ["small", "int8", "all", str(PLACES + 5), "2"]


def test_ls_knows_levels_of_compression_and_the_pins_of_their_blocks(
    novacron: Novacron, compressed: Path
) -> None:
    records = json.loads(novacron("cache", "ls", *at(compressed), "--json").output)
    counts = {record["level"]: (record["num_blocks"], record["num_pins"]) for record in records}
    assert counts == {"int8": (6, 1), "raw": (3, 1)}
    lines = novacron("cache", "ls", *at(compressed)).output.splitlines()
    assert {line.split()[1] for line in lines[1:]} == {"float32:int8", "float32"}


def test_verify_checks_blocks_of_all_levels(novacron: Novacron, compressed: Path) -> None:
    assert novacron("cache", "verify", *at(compressed)).exit_code == 0
    [path] = {
        Path(file["path"])
        for record in json.loads(novacron("cache", "ls", *at(compressed), "--json").output)
        for file in record["files"]
        if record["level"] == "int8"
    }
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # in the last place, which is empty
    start = content.index(b"NCKVREC2")
    content[start + 100] ^= 1
    path.write_bytes(content)
    assert novacron("cache", "verify", *at(compressed)).exit_code == 1


def test_clear_leaves_compressed_files_with_pinned_blocks(
    novacron: Novacron, compressed: Path
) -> None:
    assert "1 hold pinned blocks" in novacron("cache", "clear", *at(compressed), "--all").output
    [left] = json.loads(novacron("cache", "ls", *at(compressed), "--json").output)
    assert left["level"] == "int8"
    assert novacron("cache", "clear", *at(compressed), "--all", "--unpin").exit_code == 0
    assert PinFile(compressed, IDENTITY).read() == ()


def test_stat_sums_up(novacron: Novacron, folder: Path) -> None:
    (folder / "strange.kvseg").write_bytes(b"of a later format")
    pin = PinnedPrefix(name="p", keys=(key_of(1), key_of(2)), num_tokens=32)
    PinFile(folder, IDENTITY).write((pin,))
    totals = json.loads(novacron("cache", "stat", *at(folder), "--json").output)
    assert (totals["num_models"], totals["num_files"], totals["unknown_files"]) == (3, 4, 1)
    assert (totals["num_blocks"], totals["pinned_blocks"]) == (PLACES + 6, 2)
    assert totals["num_bytes"] == sum(path.stat().st_size for path in folder.glob("*.kvseg"))
    assert "1 file of another format" in novacron("cache", "stat", *at(folder)).output


def test_verify_finds_what_does_not_check_and_drops_it(novacron: Novacron, folder: Path) -> None:
    found = novacron("cache", "verify", *at(folder))
    assert found.exit_code == 1
    assert f"{PLACES + 5} blocks check, 1 do not" in found.output
    dropped = novacron("cache", "verify", *at(folder), "--drop")
    assert (dropped.exit_code, "are dropped" in dropped.output) == (0, True)
    clean = novacron("cache", "verify", *at(folder))
    assert (clean.exit_code, clean.output.strip()) == (0, f"{PLACES + 5} blocks check, 0 do not.")


def test_clear_by_model_and_by_age(novacron: Novacron, folder: Path) -> None:
    dry = novacron("cache", "clear", *at(folder), "--model", "small", "--dry-run")
    assert f"2 files with {PLACES + 5} blocks" in dry.output
    assert "would be removed" in dry.output
    assert len(listed(novacron, folder)) == 2
    old = novacron("cache", "clear", *at(folder), "--older-than", "7d")
    assert old.output.startswith("1 files with 1 blocks")
    assert list(listed(novacron, folder)) == ["small"]
    novacron("cache", "clear", *at(folder), "--model", "small")
    assert listed(novacron, folder) == {}
    assert "No KV blocks" in novacron("cache", "ls", *at(folder)).output


def test_clear_leaves_pinned_files_and_those_being_filled(novacron: Novacron, folder: Path) -> None:
    pin = PinnedPrefix(name="p", keys=(key_of(1),), num_tokens=16)
    PinFile(folder, IDENTITY).write((pin,))
    tier = DiskTier(folder, LIMIT, RECORD_BYTES, IDENTITY)
    put(tier, 9000)  # fills one of the files further
    result = novacron("cache", "clear", *at(folder), "--all")
    assert "1 files" in result.output.splitlines()[0]
    assert "1 hold pinned blocks" in result.output
    assert "1 are being filled" in result.output
    tier.close()
    assert "2 files" in novacron("cache", "clear", *at(folder), "--all", "--unpin").output
    assert list(folder.glob("*.kvseg")) == list(folder.glob("pins-*")) == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("clear",), "Say what shall go"),
        (("clear", "--model", "typo"), "small"),
        (("clear", "--all", "--level", "ram"), "--level needs --url"),
        (("clear", "--all", "--url", "http://127.0.0.1:1"), "not for --url"),
        (("warm",), "Give a FILE"),
    ],
)
def test_what_makes_no_sense_is_refused(
    novacron: Novacron, folder: Path, arguments: tuple[str, ...], word: str
) -> None:
    where = at(folder) if arguments[0] == "clear" else ()
    result = novacron("cache", *arguments, *where)
    assert result.exit_code == 2
    assert word in result.output
    assert len(listed(novacron, folder)) == 2


def test_a_folder_that_is_not_there_is_told(novacron: Novacron, tmp_path: Path) -> None:
    for command in (("ls",), ("stat",), ("verify",), ("clear", "--all")):
        result = novacron("cache", *command, *at(tmp_path / "no"))
        assert (result.exit_code, "--kv-disk-path" in result.output) == (2, True)


WARMED = {"num_tokens": 40, "computed_tokens": 24, "cached_tokens": 16, "seconds": 0.5}


def test_prefixes_are_sent_as_they_are_written(novacron: Novacron, api, tmp_path: Path) -> None:
    seen: list[tuple[str, str, object]] = []

    def answer(method: str, path: str, body: object) -> tuple[int, object]:
        seen.append((method, path, body))
        return 200, WARMED if path.endswith("warm") else {"pin": {"name": "n"}, "warmed": WARMED}

    api.answer = answer
    chat = tmp_path / "chat.json"
    messages = [{"role": "system", "content": "Be kind."}]
    chat.write_text(json.dumps({"messages": messages, "temperature": 1}))
    warm = novacron("cache", "warm", str(chat), "--url", api.url)
    assert "24 computed in 0.50 s" in warm.output
    chat.write_text(json.dumps(messages))
    assert novacron("cache", "warm", str(chat), "--url", api.url).exit_code == 0
    pin = novacron(
        "cache", "pin", "--prompt", "Hello", "--name", "n", "--ttl", "2h", "--public",
        "--url", api.url,
    )  # fmt: skip
    assert pin.output.startswith("n: 40 tokens")
    assert novacron("cache", "unpin", "n", "--url", api.url).exit_code == 0
    base = "/api/v1/llm/cache"
    assert seen == [
        ("POST", f"{base}/warm", {"messages": messages}),
        ("POST", f"{base}/warm", {"messages": messages}),
        (
            "POST",
            f"{base}/pin",
            {"prompt": "Hello", "cache_scope": "public", "name": "n", "ttl": 7200.0},
        ),
        ("POST", f"{base}/unpin", {"name": "n"}),
    ]


def test_a_running_server_is_cleared_and_listed(novacron: Novacron, api) -> None:
    seen: list[tuple[str, str]] = []
    pin = {
        "name": "n", "public": True, "num_tokens": 32, "num_bytes": 2048,
        "stored_blocks": {"ram": 2}, "expires_at": None,
    }  # fmt: skip

    def answer(method: str, path: str, body: object) -> tuple[int, object]:
        seen.append((method, path))
        if method == "DELETE":
            return 200, {"blocks": {"ram": 7}, "dry_run": False}
        return 200, {"pins": [pin], "pinned_blocks": 2, "most_blocks": 9}

    api.answer = answer
    cleared = novacron("cache", "clear", "--url", api.url, "--level", "ram", "--unpin")
    assert cleared.output == "Blocks dropped: ram 7.\n"
    pins = novacron("cache", "ls", "--url", api.url).output.splitlines()
    assert pins[1].split() == ["n", "public", "32", "2.0", "KiB", "ram", "2", "-"]
    assert pins[2] == "2 blocks are pinned; 9 may be."
    path = "/api/v1/llm/cache"
    assert seen == [
        ("DELETE", f"{path}?level=ram&unpin=true&dry_run=false"),
        ("GET", f"{path}/pins"),
    ]


def test_kept_answers_are_counted_and_dropped(novacron: Novacron, api) -> None:
    seen: list[tuple[str, str]] = []
    told: dict[str, object] = {
        "store": "memory", "entries": 1200, "bytes": 2048, "hits": 7, "semantic_hits": 0,
        "misses": 3, "bypassed": 1, "saved_tokens": 99, "store_errors": 0,
    }  # fmt: skip

    def answer(method: str, path: str, body: object) -> tuple[int, object]:
        seen.append((method, path))
        if method == "DELETE":
            return 200, {"entries": 3, "bytes": 1024, "dry_run": True}
        return 200, told

    api.answer = answer
    lines = novacron("cache", "answers", "--url", api.url).output.splitlines()
    assert lines[:2] == ["1,200 answers in memory, 2.0 KiB.", "hits: 7"]
    told["store"] = None
    assert "keeps no answers" in novacron("cache", "answers", "--url", api.url).output
    flushed = novacron("cache", "answers", "--flush", "--dry-run", "--url", api.url)
    assert flushed.output == "3 answers, 1.0 KiB, would be dropped.\n"
    assert novacron("cache", "answers", "--dry-run", "--url", api.url).exit_code == 2
    path = "/api/v1/llm/response-cache"
    assert seen == [
        ("GET", path),
        ("GET", path),
        ("DELETE", f"{path}?all_tenants=false&dry_run=true"),
    ]


def test_stat_of_a_server_tells_how_long_calls_took() -> None:
    disk = TierStats(kind="disk", capacity_bytes=1000, loads=LatencyCounts.of(0.004))
    status = msgspec.to_builtins(cache_status(EngineStats(kv_tiers=(disk,))))
    report = {"metrics": {"seconds": 9, "hit_rate": None}, "trends": {"hit_rate": "unknown"}}
    [line] = [one for one in server_text(status, {**report, "bottlenecks": []}).splitlines()
              if one.startswith("disk")]  # fmt: skip
    assert line.endswith("3.8, 5.1 ms"), line
    slow = msgspec.structs.replace(disk, loads=LatencyCounts.of(1.5))
    fetched = TierStats(kind="prefetch", capacity_bytes=1000, num_stored=8, num_loaded=6)
    status = msgspec.to_builtins(cache_status(EngineStats(kv_tiers=(slow, fetched))))
    text = server_text(status, {**report, "bottlenecks": []})
    assert "e+" not in text
    assert "Fetched ahead: 8 blocks, 75.0% of them used." in text


def test_stat_of_a_server_tells_why_a_tier_does_less() -> None:
    disk = TierStats(kind="disk", capacity_bytes=1000, pressure="critical", store_breaker="open")
    report = {"metrics": {"seconds": 9, "hit_rate": None}, "trends": {"hit_rate": "unknown"}}
    status = msgspec.to_builtins(cache_status(EngineStats(kv_tiers=(disk,))))
    *_, room, rest = server_text(status, {**report, "bottlenecks": []}).splitlines()
    assert room == "The disk runs out (critical): no growth, store less."
    assert rest.startswith("disk: nothing is stored for a while")
    well = msgspec.to_builtins(cache_status(EngineStats()))
    text = server_text(well, {**report, "bottlenecks": []})
    assert "unknown" not in text
    assert text.splitlines()[-1] == "Pinned: 0 blocks."
