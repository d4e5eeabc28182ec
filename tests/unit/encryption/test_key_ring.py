"""Data keys: shared through a place, opened by the right master key, and wrapped anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.encryption.key_places import FolderPlace
from novacron.encryption.key_ring import MOST_AGE_S, KeyRing
from novacron.encryption.key_sources import open_master_keys
from novacron.encryption.master_keys import new_master_key
from novacron.encryption.object_place import ObjectPlace
from novacron.encryption.redis_place import RedisPlace
from novacron.encryption.sealing import Sealing, UnknownKey
from novacron.errors import ConfigError
from novacron.testing.redis_server import find_server, running_redis

OLD, NEW = new_master_key(), new_master_key()


class InMemory:
    shown = "memory"

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def read(self) -> Mapping[str, bytes]:
        return dict(self.values)

    def write(self, id: str, data: bytes) -> None:
        self.values[id] = data


class Clock:
    def __init__(self) -> None:
        self.s = 1e9

    def __call__(self) -> float:
        return self.s


def ring_with(place: InMemory | FolderPlace, *keys: str, clock: Clock | None = None) -> KeyRing:
    clock = clock or Clock()
    masters = open_master_keys("env:M", {"M": " ".join(keys)})
    return KeyRing(place, masters, now=clock, clock=clock)


@given(data=st.binary(max_size=300), purpose=st.binary(max_size=20))
def test_what_is_sealed_opens_for_the_same_purpose_alone(data: bytes, purpose: bytes) -> None:
    sealing = Sealing(ring_with(InMemory(), NEW))
    sealed = sealing.seal(data, purpose)
    assert len(sealed) == len(data) + sealing.overhead_bytes
    assert sealing.open(sealed, purpose) == data
    assert sealing.open(sealed, purpose + b"x") is None


@given(data=st.binary(min_size=1, max_size=60), change=st.data())
def test_no_changed_byte_opens(data: bytes, change: st.DataObject) -> None:
    sealing = Sealing(ring_with(InMemory(), NEW))
    sealed = bytearray(sealing.seal(data, b"p"))
    place = change.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= change.draw(st.integers(1, 255))
    try:
        assert sealing.open(bytes(sealed), b"p") is None
    except UnknownKey:
        assert 4 <= place < 12  # of the id
    length = change.draw(st.integers(0, len(sealed) - 1))
    assert sealing.open(bytes(sealed[:length]), b"p") is None


def test_equal_bytes_are_sealed_differently_and_show_nothing() -> None:
    sealing = Sealing(ring_with(InMemory(), NEW))
    first, second = (sealing.seal(b"a secret" * 9, b"p") for _ in range(2))
    assert first != second
    assert b"secret" not in first


def test_another_process_with_the_same_master_key_reads_it(tmp_path: Path) -> None:
    writer = Sealing(ring_with(FolderPlace(tmp_path / "keys"), NEW))
    sealed = writer.seal(b"data", b"p")
    reader = Sealing(ring_with(FolderPlace(tmp_path / "keys"), NEW))
    assert reader.open(sealed, b"p") == b"data"
    [file] = (tmp_path / "keys").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0


def test_a_key_that_others_have_added_meanwhile_is_looked_for_but_not_all_the_time() -> None:
    place, clock = InMemory(), Clock()
    reader = ring_with(place, NEW, clock=clock)
    assert reader.find(b"unknown!") is None
    sealed = Sealing(ring_with(place, NEW)).seal(b"data", b"p")
    with pytest.raises(UnknownKey):
        Sealing(reader).open(sealed, b"p")
    clock.s += 11
    assert Sealing(reader).open(sealed, b"p") == b"data"


def test_a_wrong_master_key_is_said_at_the_start_and_opens_nothing() -> None:
    place = InMemory()
    sealed = Sealing(ring_with(place, OLD)).seal(b"data", b"p")
    wrong = ring_with(place, NEW)
    with pytest.raises(ConfigError, match=r"was encrypted with the master key .* and that of"):
        wrong.check()
    with pytest.raises(UnknownKey):
        Sealing(wrong).open(sealed, b"p")
    ring_with(place, NEW, OLD).check()
    ring_with(InMemory(), NEW).check()


def test_a_rotation_wraps_anew_and_leaves_data_as_it_is() -> None:
    place = InMemory()
    sealed = Sealing(ring_with(place, OLD)).seal(b"data", b"p")
    before = set(place.values)
    done = ring_with(place, NEW, OLD).rotate()
    assert (done.num_wrapped_anew, done.num_left) == (1, 0)
    after = Sealing(ring_with(place, NEW))
    assert after.open(sealed, b"p") == b"data"
    assert after.seal(b"more", b"p")[4:12].hex() not in before  # with a key of its own
    with pytest.raises(ConfigError):
        ring_with(place, OLD).check()


def test_a_rotation_without_the_old_key_says_what_it_leaves() -> None:
    place = InMemory()
    Sealing(ring_with(place, OLD)).seal(b"data", b"p")
    kept = dict(place.values)
    done = ring_with(place, NEW).rotate()
    assert (done.num_wrapped_anew, done.num_left) == (0, 1)
    assert kept.items() <= place.values.items()


def test_a_wrapped_key_does_not_open_under_another_name_or_when_changed() -> None:
    place = InMemory()
    Sealing(ring_with(place, NEW)).seal(b"data", b"p")
    [(id, data)] = place.values.items()
    place.values = {
        "00" * 8: data,
        "11" * 8: b"{",
        id: data.replace(b'"created_ms":1', b'"created_ms":2'),
    }
    assert [known for _, _, known in ring_with(place, NEW).status()] == [False, False]


def test_after_a_month_new_data_gets_a_new_key() -> None:
    place, clock = InMemory(), Clock()
    ring = ring_with(place, NEW, clock=clock)
    first = ring.current()
    clock.s += MOST_AGE_S - 1
    assert ring.current() is first
    clock.s += 1
    assert ring.current() is not first
    assert ring.find(first.id) is first


def test_a_bucket_and_a_folder_of_one_keep_keys(tmp_path: Path) -> None:
    url = tmp_path.as_uri()
    masters = open_master_keys("env:M", {"M": NEW})
    sealed = Sealing(KeyRing(ObjectPlace(url, 1.0), masters)).seal(b"data", b"p")
    assert Sealing(KeyRing(ObjectPlace(url, 1.0), masters)).open(sealed, b"p") == b"data"


@pytest.mark.skipif(find_server() is None, reason="there is no redis-server")
def test_redis_keeps_keys_beside_blocks() -> None:
    masters = open_master_keys("env:M", {"M": NEW})
    with running_redis() as socket:
        places = [RedisPlace(f"unix://{socket}", "novacron", 5.0) for _ in range(2)]
        sealed = Sealing(KeyRing(places[0], masters)).seal(b"data", b"p")
        assert Sealing(KeyRing(places[1], masters)).open(sealed, b"p") == b"data"
    with pytest.raises(OSError, match="Redis"):
        places[0].read()
