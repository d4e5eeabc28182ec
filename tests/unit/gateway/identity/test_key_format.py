from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.gateway.identity.key_format import new_key, prefix_of
from novacron.gateway.identity.key_hash import hash_key, is_key_of


def test_a_new_key_is_found_by_its_prefix_and_is_like_no_other() -> None:
    keys = [new_key() for _ in range(100)]
    assert len({key.text for key in keys}) == len({key.prefix for key in keys}) == 100
    assert all(prefix_of(key.text.encode()) == key.prefix for key in keys)
    assert all(key.text.startswith(key.prefix + "_") and key.text.isascii() for key in keys)
    assert keys[0].text not in repr(keys[0])


@given(st.integers(0, 63), st.binary(min_size=1, max_size=1))
def test_a_mistyped_key_is_none(place: int, other: bytes) -> None:
    key = new_key().text.encode()
    changed = key[:place] + other + key[place + 1 :]
    assert changed == key or prefix_of(changed) is None


@given(st.binary(max_size=80))
def test_other_things_are_no_keys(token: bytes) -> None:
    assert prefix_of(token) is None
    key = new_key().text.encode()
    assert not token or prefix_of(token + key) is prefix_of(key + token) is None


def test_a_hash_fits_its_key_alone_and_tells_nothing_of_it() -> None:
    key, other = new_key().text, new_key().text
    kept = hash_key(key)
    assert is_key_of(kept, key.encode())
    assert not is_key_of(kept, other.encode())
    assert not is_key_of(kept, key.encode() + b"\n")
    assert key[15:] not in kept
    assert kept != hash_key(key), "salted"
    for broken in ("", "plain", kept[:-5], kept.replace("argon2id", "argon2x"), key):
        assert not is_key_of(broken, key.encode())
