"""Records on their way to tiers that take any bytes: what comes out is what went in, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.config.kv_compression import KVLevel, levels_from
from novacron.kv_tiers.codecs.codec import make_codec
from novacron.kv_tiers.compressed_tier import codec_totals
from novacron.kv_tiers.object_tier import ObjectTier
from novacron.kv_tiers.packing import Coded, Packing, Whole
from novacron.kv_tiers.record import block_of, is_sound, record_bytes, seal
from novacron.kv_tiers.redis_tier import RedisTier
from novacron.kv_tiers.tier import Bytes, KVTier, Record
from novacron.kv_tiers.zstd_packing import Zstd
from novacron.testing.kv_layouts import make_block, make_layout
from novacron.testing.kv_records import IDENTITY, key_of
from novacron.testing.redis_server import find_server, running_redis

LAYOUT = make_layout(num_layers=1, num_heads=1, num_tokens=8, head_dim=16)
SIZE = record_bytes(LAYOUT.block_bytes)


def coded(level: KVLevel, max_error: float = 0.3) -> Coded:
    codecs = [make_codec(one, LAYOUT) for one in levels_from(level)]
    return Coded(codecs, IDENTITY, max_error)


PACKINGS: dict[str, Callable[[], Packing]] = {
    "whole": Whole,
    "zstd": Zstd,
    "int8": lambda: coded("int8"),
    "int4": lambda: coded("int4"),
    "nothing is fine enough": lambda: coded("int8", max_error=0.0),
}
packings = pytest.mark.parametrize("name", PACKINGS)


def make_record(number: int) -> Record:
    """Every third block holds what no level but raw can hold; the others are easy to pack."""
    block = make_block(LAYOUT, number)
    floats = block.view(np.float32)
    floats[: len(floats) // 2] = 1.0 + number
    if number % 3 == 0:
        floats[number] = np.inf
    data = np.empty(SIZE, np.uint8)
    block_of(data)[:] = block
    seal(data, IDENTITY, key_of(number))
    return Record(key_of(number), data)


def is_near(name: str, number: int, record: Bytes) -> bool:
    """Whether it is the record, bit for bit where nothing may be lost."""
    whole = make_record(number).data
    if name not in ("int8", "int4") or number % 3 == 0:
        return bool((record == whole).all())
    lost = block_of(record).view(np.float32) - block_of(whole).view(np.float32)
    return bool(np.abs(lost).max() <= 0.3 * np.abs(block_of(whole).view(np.float32)).max())


@packings
@given(number=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_what_is_unpacked_is_sound(name: str, number: int) -> None:
    packing, record = PACKINGS[name](), make_record(number)
    data = bytes(packing.pack(record.key, record.data))
    into = np.zeros(SIZE, np.uint8)
    assert packing.unpack(record.key, data, into)
    assert is_sound(into, IDENTITY, record.key)
    assert is_near(name, number, into)


@packings
@given(data=st.data(), number=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_other_bytes_are_refused_or_do_not_check(
    name: str, data: st.DataObject, number: int
) -> None:
    packing, record = PACKINGS[name](), make_record(number)
    packed = bytearray(packing.pack(record.key, record.data))
    kind = data.draw(st.sampled_from(["flip", "cut", "more", "other"]))
    if kind == "flip":
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del packed[data.draw(st.integers(0, len(packed) - 1)) :]
    elif kind == "more":
        packed += b"more"
    else:
        packed = bytearray(data.draw(st.binary(max_size=200)))
    into = np.zeros(SIZE, np.uint8)
    if packing.unpack(record.key, bytes(packed), into) and is_sound(into, IDENTITY, record.key):
        assert is_near(name, number, into), "zstd's end may carry what it does not read"


def test_a_value_that_claims_to_be_large_makes_no_memory() -> None:
    import zstandard

    bomb = zstandard.ZstdCompressor().compress(bytes(2**24))
    assert not Zstd().unpack(key_of(1), bomb, np.zeros(SIZE, np.uint8))


@packings
def test_totals_tell_what_is_gained(name: str) -> None:
    packing = PACKINGS[name]()
    for number in range(1, 7):
        packing.pack(key_of(number), make_record(number).data)
    if name == "whole":
        assert packing.totals is None
        return
    assert packing.totals is not None
    assert packing.totals.num_encoded == 6
    if name == "nothing is fine enough":
        assert packing.totals.num_finer == 6
    else:
        assert packing.totals.ratio > 1.2


def check_tier(
    name: str, open_one: Callable[[Packing], KVTier], see: Callable[[KVTier], None]
) -> None:
    """Put by one process, found by another."""
    first = open_one(PACKINGS[name]())
    first.put([make_record(number) for number in range(6)])
    first.put([make_record(6)])
    totals = codec_totals(first)
    assert (totals is None) == (name == "whole")
    second = open_one(PACKINGS[name]())
    see(second)
    buffers = [np.zeros(SIZE, np.uint8) for _ in range(8)]
    wanted = [3, 1, 6, 0, 5, 2, 4, 7]
    found = second.get([key_of(number) for number in wanted], buffers)
    assert found == [number != 7 for number in wanted]
    for number, record in zip(wanted[:-1], buffers, strict=False):
        assert is_sound(record, IDENTITY, key_of(number))
        assert is_near(name, number, record)


@packings
def test_a_bucket_says_in_its_names_how_long_records_are(name: str, tmp_path: Path) -> None:
    def open_one(packing: Packing) -> ObjectTier:
        return ObjectTier(
            f"file://{tmp_path}",
            record_bytes=SIZE,
            identity=IDENTITY,
            capacity_bytes=0,
            timeout_s=30.0,
            packing=packing,
        )

    def see(tier: KVTier) -> None:
        assert isinstance(tier, ObjectTier)
        tier.refresh()
        on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        assert tier.used_bytes == on_disk
        if name in ("zstd", "int8", "int4"):
            assert on_disk < 7 * SIZE

    check_tier(name, open_one, see)


@pytest.mark.skipif(find_server() is None, reason="there is no redis-server")
@packings
def test_a_redis_server_takes_records_of_any_length(name: str) -> None:
    with running_redis() as socket:

        def open_one(packing: Packing) -> RedisTier:
            return RedisTier(
                f"unix://{socket}",
                record_bytes=SIZE,
                identity=IDENTITY,
                capacity_bytes=20 * SIZE,
                ttl_s=60.0,
                namespace="packed",
                timeout_s=30.0,
                packing=packing,
            )

        check_tier(name, open_one, lambda tier: None)
