from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.config.kv_compression import KVLevel, levels_from
from novacron.kv_tiers.codecs.codec import make_codec
from novacron.kv_tiers.compressed_tier import CompressedTier, Shelf, codec_totals, identity_in
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.protection import Protection
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.record import block_of, is_sound, record_bytes, seal
from novacron.kv_tiers.segment import SegmentShape
from novacron.kv_tiers.tier import Bytes, KVTier, Put, Record
from novacron.records.block_moves import BlockOrigin
from novacron.testing.kv_layouts import make_block, make_layout
from novacron.testing.kv_records import IDENTITY, key_of

LAYOUT = make_layout(num_layers=1, num_heads=1, num_tokens=8, head_dim=16)
RAW = make_codec("raw", LAYOUT)
SIZE = record_bytes(LAYOUT.block_bytes)
NUMBERS = range(10)
FOLDER_BYTES = 40 * SegmentShape.within(0, SIZE, IDENTITY).file_bytes


def block_content(number: int) -> Bytes:
    """Every third block is one that no level but raw can hold."""
    block = make_block(LAYOUT, number)
    if number % 3 == 0:
        block.view(np.float32)[number] = np.inf
    return block


def make_record(number: int) -> Record:
    data = np.empty(SIZE, np.uint8)
    block_of(data)[:] = block_content(number)
    seal(data, IDENTITY, key_of(number))
    return Record(key_of(number), data)


def make_tier(
    kind: str,
    folder: Path,
    level: KVLevel = "int8",
    *,
    num_records: int = 4,
    max_error: float = 0.3,
    pinned: Iterable[int] = (),
) -> CompressedTier:
    """Of RAM, room for so many records of each level."""
    keys = frozenset(map(key_of, pinned))
    shelves = []
    for one in levels_from(level):
        codec = make_codec(one, LAYOUT)
        size, identity = record_bytes(codec.encoded_bytes), identity_in(IDENTITY, one)
        tier: KVTier = (
            RamTier(num_records * size, size, protection=Protection(keys, num_records))
            if kind == "ram"
            else DiskTier(folder, FOLDER_BYTES, size, identity)
        )
        shelves.append(Shelf(codec, tier))
    return CompressedTier(shelves, IDENTITY, max_error, is_one_place=kind == "disk", pinned=keys)


def held(tier: KVTier) -> dict[int, Bytes]:
    """What the tier gives back, by number. Raises AssertionError if a record is not sound."""
    buffers = [np.empty(SIZE, np.uint8) for _ in NUMBERS]
    found = tier.get([key_of(number) for number in NUMBERS], buffers)
    blocks = {}
    for number, is_there, buffer in zip(NUMBERS, found, buffers, strict=True):
        if is_there:
            assert is_sound(buffer, IDENTITY, key_of(number))
            blocks[number] = block_of(buffer)
    return blocks


def expected_content(number: int, level: KVLevel) -> Bytes:
    """The block after the level, or as it was if the level cannot hold it."""
    block = block_content(number)
    codec = make_codec(level, LAYOUT)
    code, left = np.empty(codec.encoded_bytes, np.uint8), np.empty_like(block)
    if codec.encode(block, code).largest == np.inf:
        return block
    codec.decode(code, left)
    return left


@pytest.mark.parametrize("kind", ["ram", "disk"])
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(["put", "put", "use", "delete"]),
            st.lists(st.sampled_from(NUMBERS), max_size=4, unique=True),
        ),
        max_size=20,
    ),
    pinned=st.sets(st.sampled_from(NUMBERS), max_size=3),
)
@settings(max_examples=25, deadline=None)
def test_what_was_put_and_not_dropped_is_there(
    kind: str, calls: list[tuple[str, list[int]]], pinned: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tier = make_tier(kind, Path(folder), pinned=pinned)
        expected: set[int] = set()
        for call, numbers in calls:
            keys = [key_of(number) for number in numbers]
            if call == "put":
                put = tier.put([make_record(number) for number in numbers])
                dropped = {int.from_bytes(key, "little") for key in put.dropped}
                assert set(put.stored).isdisjoint(put.dropped)
                expected = (expected | set(numbers)) - dropped
            elif call == "use":
                assert tier.contains(keys) == [number in expected for number in numbers]
            else:
                tier.delete(keys)
                expected -= set(numbers)
            blocks = held(tier)
            assert set(blocks) == expected
            for number, block in blocks.items():
                level: KVLevel = "raw" if number in pinned else "int8"
                assert (block == expected_content(number, level)).all()
        if kind == "disk":
            used = sum(path.stat().st_size for path in Path(folder).glob("*.kvseg"))
            assert used <= FOLDER_BYTES
        tier.close()


def test_a_block_falls_back_to_the_first_level_that_loses_little_enough(tmp_path: Path) -> None:
    """Errors of normal numbers: 0.1 in int4, 0.01 in int8."""
    record = make_record(1)
    for max_error, level in ((0.3, "int4"), (0.02, "int8"), (0.0001, "raw")):
        tier = make_tier("ram", tmp_path, "int4", max_error=max_error)
        tier.put([record])
        assert (held(tier)[1] == expected_content(1, level)).all()  # type: ignore[arg-type]
        totals = tier.totals
        assert (totals.num_encoded, totals.num_finer) == (1, int(level != "int4"))
        assert totals.raw_bytes == LAYOUT.block_bytes
        assert totals.encoded_bytes == make_codec(level, LAYOUT).encoded_bytes  # type: ignore[arg-type]
        assert totals.error == totals.worst_error <= max_error
        assert (totals.error == 0) == (level == "raw")


def test_pinned_blocks_are_kept_finer_as_far_as_there_is_room(tmp_path: Path) -> None:
    tier = make_tier("ram", tmp_path, "int4", num_records=1, pinned=(1, 2))
    tier.put([make_record(1)])
    assert (held(tier)[1] == expected_content(1, "int8/int4")).all()
    assert tier.put([make_record(2), make_record(4)]).stored == (key_of(2),)
    blocks = held(tier)
    assert (blocks[1] == expected_content(1, "int8/int4")).all()
    assert (blocks[2] == expected_content(2, "int4")).all(), "the other one has the place"


def test_a_block_lies_in_one_level_only(tmp_path: Path) -> None:
    tier = make_tier("ram", tmp_path)
    record = make_record(1)
    tier.put([record])
    small = tier.used_bytes
    block_of(record.data).view(np.float32)[0] = np.nan
    seal(record.data, IDENTITY, record.key)
    assert tier.put([record]) == Put(stored=(record.key,))
    assert tier.used_bytes == SIZE > 2 * small
    assert (held(tier)[1] == block_of(record.data)).all()
    tier.put([make_record(1)])
    assert tier.used_bytes == small


def test_other_levels_and_other_engines_find_nothing(tmp_path: Path) -> None:
    tier = make_tier("disk", tmp_path, "int8")
    tier.put([make_record(1), make_record(3)])
    tier.close()
    assert set(held(make_tier("disk", tmp_path, "int8"))) == {1, 3}
    assert set(held(make_tier("disk", tmp_path, "int4"))) == {1, 3}, "int8 is a level of int4's"
    assert set(held(DiskTier(tmp_path, FOLDER_BYTES, SIZE, IDENTITY))) == {3}, "as it was"


def test_fp8_and_int8_have_one_size_and_are_not_mixed_up(tmp_path: Path) -> None:
    tier = make_tier("disk", tmp_path, "fp8")
    tier.put([make_record(1)])
    tier.close()
    again = make_tier("disk", tmp_path, "fp8")
    assert (held(again)[1] == expected_content(1, "fp8")).all()
    assert not held(make_tier("disk", tmp_path, "int8"))


def test_a_damaged_record_does_not_check(tmp_path: Path) -> None:
    tier = make_tier("disk", tmp_path)
    tier.put([make_record(1)])
    [path] = tmp_path.glob("*.kvseg")
    data = bytearray(path.read_bytes())
    data[data.index(b"NCKVREC2") + 100] ^= 1
    path.write_bytes(data)
    buffer = np.empty(SIZE, np.uint8)
    [is_there] = tier.get([key_of(1)], [buffer])
    assert is_there
    assert not is_sound(buffer, IDENTITY, key_of(1))
    tier.delete([key_of(1)])
    assert not held(tier)


class FullTier(RamTier):
    """A tier that can never keep anything."""

    def put(self, records: object) -> Put:
        raise OSError("full")


def test_a_level_that_fails_does_not_take_the_others_along() -> None:
    codecs = [make_codec(level, LAYOUT) for level in levels_from("int8")]
    sizes = [record_bytes(codec.encoded_bytes) for codec in codecs]
    shelves = [
        Shelf(codecs[0], RamTier(4 * sizes[0], sizes[0])),
        Shelf(codecs[1], FullTier(4 * sizes[1], sizes[1])),
    ]
    tier = CompressedTier(shelves, IDENTITY, 0.3, is_one_place=False)
    assert tier.put([make_record(1), make_record(3)]) == Put(stored=(key_of(1),))
    with pytest.raises(OSError, match="full"):
        tier.put([make_record(3)])


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_it_tells_whose_records_all_levels_have(kind: str, tmp_path: Path) -> None:
    tier = make_tier(kind, tmp_path, max_error=0.0)  # so nothing is in the level that was asked for
    record = make_record(1)._replace(origin=BlockOrigin(None, 0, scope=b"scope-aa"))
    tier.put([record, make_record(3)])
    assert tier.keys_of(b"scope-aa") == [key_of(1)]


def test_tiers_that_do_not_compress_have_no_totals() -> None:
    assert codec_totals(RamTier(SIZE, SIZE)) is None
    tier = CompressedTier([Shelf(RAW, RamTier(SIZE, SIZE))], IDENTITY, 0.0, is_one_place=False)
    assert codec_totals(tier) == tier.totals
