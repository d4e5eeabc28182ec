from __future__ import annotations

from novacron.cluster.cache_answers import merge_answers
from novacron.cluster.given_pins import GivenPins
from novacron.records.cache_orders import ClearCache, ClearedCache, Pin, PinInfo, PinList, Unpin


def pin(name: str, **stored: int) -> PinInfo:
    return PinInfo(name, False, 32, 2, None, stored)


def test_pins_are_listed_once_with_most_of_what_is_stored() -> None:
    lists = [
        PinList((pin("a", ram=1, disk=1), pin("b", ram=2)), 4, 10, 64),
        PinList((pin("a", ram=2, disk=2),), 2, 9, 64),
    ]
    merged = merge_answers(lists)
    assert isinstance(merged, PinList)
    assert merged.pins == (pin("a", ram=2, disk=2), pin("b", ram=2))
    assert (merged.num_blocks, merged.most_blocks, merged.block_bytes) == (4, 9, 64)


def test_cleared_blocks_add_up_but_for_those_of_a_shared_tier() -> None:
    answers = [ClearedCache({"device": 3, "disk": 7}), ClearedCache({"device": 2, "disk": 6})]
    assert merge_answers(answers) == ClearedCache({"device": 5, "disk": 7})


def test_given_pins_are_those_that_still_hold() -> None:
    pins = GivenPins()
    for order in (Pin("a", (1,)), Pin("b", (2,)), Pin("a", (3,)), Unpin("b"), ClearCache()):
        pins.note(order)
    assert len(pins) == 1
    pins.note(ClearCache(unpin=True, dry_run=True))
    assert len(pins) == 1
    pins.note(ClearCache(unpin=True, scope=b"another."))
    assert len(pins) == 1
    pins.note(ClearCache(unpin=True))
    assert not pins
