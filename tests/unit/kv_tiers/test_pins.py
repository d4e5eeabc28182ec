from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.errors import PinLimit, PinNotFound
from novacron.kv_tiers.pin_file import PinFile
from novacron.kv_tiers.pins import PinLimits, PinnedPrefix, Pins, kept_within
from novacron.testing.kv_records import IDENTITY, key_of

A, B = b"scope-aa", b"scope-bb"


def pin(
    name: str,
    *numbers: int,
    scope: bytes = b"",
    expires_s: float | None = None,
    public: bool = False,
) -> PinnedPrefix:
    return PinnedPrefix(
        name=name,
        scope=scope,
        is_public=public,
        keys=tuple(map(key_of, numbers)),
        num_tokens=16 * len(numbers),
        expires_s=expires_s,
    )


def make_pins(most: int = 6, of_scope: int = 4) -> Pins:
    return Pins(PinLimits(most, of_scope))


def test_a_shared_block_is_pinned_until_nobody_pins_it() -> None:
    pins = make_pins()
    pins.add(pin("x", 1, 2, scope=A))
    pins.add(pin("y", 1, 3, scope=B))
    assert pins.keys == {key_of(1), key_of(2), key_of(3)}
    pins.remove(A, "x")
    assert pins.keys == {key_of(1), key_of(3)}
    with pytest.raises(PinNotFound):
        pins.remove(A, "y")  # is another's
    pins.check_integrity()


def test_more_than_the_limits_is_refused_and_changes_nothing() -> None:
    pins = make_pins()
    pins.add(pin("x", 1, 2, 3, scope=A))
    with pytest.raises(PinLimit, match=r"5 blocks.* at most 4"):
        pins.add(pin("y", 4, 5, scope=A))
    pins.add(pin("y", 3, 4, scope=A))  # shares one, so 4 in all
    pins.add(pin("z", 5, 6, scope=B))
    with pytest.raises(PinLimit, match=r"7 blocks.* at most 6"):
        pins.add(pin("w", 7))
    assert len(pins.keys) == 6
    assert {p.name for p in pins.all} == {"x", "y", "z"}


def test_a_name_is_given_anew() -> None:
    pins = make_pins()
    pins.add(pin("x", 1, 2, 3, 4, scope=A))
    pins.add(pin("x", 5, 6, 7, scope=A))  # the old ones make room for it
    assert pins.keys == {key_of(n) for n in (5, 6, 7)}
    assert [p.name for p in pins.visible_to(A)] == ["x"]


def test_scopes_see_their_own_pins_and_everyones() -> None:
    pins = make_pins()
    for scope, name in ((A, "a"), (B, "b"), (b"", "all")):
        pins.add(pin(name, 1, scope=scope))
    assert {p.name for p in pins.visible_to(A)} == {"a", "all"}
    assert {p.name for p in pins.visible_to(b"")} == {"all"}


def test_pins_end_when_their_time_is_over() -> None:
    pins = make_pins()
    pins.add(pin("x", 1, expires_s=10.0))
    pins.add(pin("y", 2, expires_s=20.0, public=True))
    pins.add(pin("z", 3))
    assert pins.public_keys == {key_of(2)}
    assert not pins.expire(9.9)
    assert pins.expire(10.0)
    assert pins.keys == {key_of(2), key_of(3)}
    assert pins.expire(99.0)
    assert (pins.public_keys, pins.keys) == (frozenset(), {key_of(3)})
    assert not pins.expire(1e12)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([A, B, b""]),
            st.sampled_from("xyz"),
            st.sets(st.integers(0, 9), max_size=5),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_whatever_is_pinned_and_unpinned_the_bounds_hold(
    orders: list[tuple[bytes, str, set[int], bool]],
) -> None:
    pins = make_pins()
    for scope, name, numbers, removes in orders:
        before = (pins.all, pins.keys)
        try:
            if removes:
                pins.remove(scope, name)
            else:
                pins.add(pin(name, *sorted(numbers), scope=scope))
        except (PinLimit, PinNotFound):
            assert (pins.all, pins.keys) == before
        pins.check_integrity()
        for each in (A, B):
            own = {key for one in pins.all if one.scope == each for key in one.keys}
            assert len(own) <= 4


def test_pins_are_found_again(tmp_path: Path) -> None:
    file = PinFile(tmp_path, IDENTITY)
    assert file.read() == ()
    pins = (pin("x", 1, 2, scope=A, expires_s=5.5), pin("y", 3, public=True))
    file.write(pins)
    assert PinFile(tmp_path, IDENTITY).read() == pins
    assert PinFile(tmp_path, b"o" * 16).read() == (), "of another model"
    [path] = tmp_path.iterdir()
    assert path.stat().st_mode & 0o077 == 0
    file.write(())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff\xfe", b'{"version": 1, "pins": [{"name": 3}]}']
)
def test_a_damaged_file_costs_the_pins_only(tmp_path: Path, content: bytes) -> None:
    file = PinFile(tmp_path, IDENTITY)
    file.write((pin("x", 1),))
    next(tmp_path.iterdir()).write_bytes(content)
    assert file.read() == ()
    file.write((pin("y", 2),))
    assert file.read() == (pin("y", 2),)


def test_of_kept_pins_only_those_come_back_that_are_allowed_now() -> None:
    kept = [pin("x", 1, 2, 3), pin("old", 4, expires_s=1.0), pin("y", 5, 6), pin("z", 7)]
    pins = kept_within(kept, PinLimits(4, 4), lambda one: one.expires_s is None)
    assert [one.name for one in pins.all] == ["x", "z"]
