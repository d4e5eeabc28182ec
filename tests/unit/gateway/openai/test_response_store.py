from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.errors import RequestNotFound
from novacron.gateway.openai.responses_api.records import ResponseObject
from novacron.gateway.openai.responses_api.store import ResponseStore
from novacron.testing.clock import FakeClock

EMPTY = ResponseObject(
    id="resp_0", created_at=0, status="completed", instructions=None, max_output_tokens=None,
    metadata={}, model="fake", parallel_tool_calls=True, previous_response_id=None, reasoning={},
    store=True, temperature=1.0, text={}, tool_choice="auto", tools=(), top_p=1.0, user=None,
)  # fmt: skip
SIZE = len(msgspec.json.encode(EMPTY)) + len(b"[]")


def response(name: str) -> ResponseObject:
    return msgspec.structs.replace(EMPTY, id=f"resp_{name}")


def test_the_oldest_leave_first_and_after_their_time() -> None:
    clock = FakeClock()
    store = ResponseStore(2 * SIZE, 10.0, clock)
    for name in "abc":
        store.put("", response(name), [])
        clock.advance(4.0)
    with pytest.raises(RequestNotFound):
        store.get("", "resp_a")
    assert store.get("", "resp_c").response == response("c")
    clock.advance(3.0)
    with pytest.raises(RequestNotFound, match="10 s"):
        store.get("", "resp_b")
    assert store.get("", "resp_c")


def test_what_does_not_fit_at_all_is_not_kept_and_pushes_nothing_out() -> None:
    store = ResponseStore(2 * SIZE, 10.0, FakeClock())
    store.put("", response("a"), [])
    store.put("", response("b"), [{"role": "user", "content": "x" * SIZE * 2}])
    assert store.get("", "resp_a")
    with pytest.raises(RequestNotFound):
        store.get("", "resp_b")


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("abcdef")), max_size=40))
def test_a_busy_tenant_leaves_room_for_others(puts: list[tuple[str, str]]) -> None:
    store = ResponseStore(12 * SIZE, 10.0, FakeClock())
    store.put("quiet", response("q"), [])
    for tenant, name in puts:
        store.put(tenant, response(name), [])
        assert store.get(tenant, f"resp_{name}").tenant == tenant
    assert store.get("quiet", "resp_q")
