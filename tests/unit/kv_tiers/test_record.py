from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from novacron.kv_tiers.record import HEADER_BYTES, identity_of, is_sound
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, key_of, make_record


def test_a_record_is_sound_as_what_it_was_sealed_for() -> None:
    key, record, _ = make_record(1)
    assert is_sound(record, IDENTITY, key)
    assert not is_sound(record, IDENTITY, key_of(2))
    for other in (
        {"model_version": "n"},
        {"kv_identity": "bfloat16"},
        {"block_size": 8},
    ):
        identity = identity_of(
            **{"model_version": "m", "kv_identity": "float32", "block_size": 4, **other}  # type: ignore[arg-type]
        )
        assert not is_sound(record, identity, key)


@given(st.integers(0, RECORD_BYTES * 8 - 1))
def test_every_flipped_bit_shows(bit: int) -> None:
    key, record, _ = make_record(1)
    record[bit // 8] ^= 1 << bit % 8
    assert not is_sound(record, IDENTITY, key)


@given(st.integers(0, RECORD_BYTES - 1), st.sampled_from([0, 255]))
def test_a_record_that_was_cut_or_torn_shows(length: int, filling: int) -> None:
    key, record, _ = make_record(1)
    torn = np.full_like(record, filling)
    torn[:length] = record[:length]
    assert is_sound(torn, IDENTITY, key) == bool((torn == record).all())


def test_an_empty_place_is_no_record() -> None:
    empty = np.zeros(RECORD_BYTES, np.uint8)
    assert not is_sound(empty, IDENTITY, key_of(0))
    assert HEADER_BYTES < RECORD_BYTES
