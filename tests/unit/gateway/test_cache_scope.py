from __future__ import annotations

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.config.key_shares import KeyShare, parse_key_shares
from novacron.config.server import ServerConfig
from novacron.errors import Forbidden, InvalidRequest
from novacron.gateway.app import build_app
from novacron.gateway.cache_scope import (
    EVERYONE,
    CacheScope,
    Caller,
    caller_of,
    scope_of,
    session_tag,
)
from novacron.gateway.identity.configured_keys import ConfiguredKeys
from novacron.records.request import Request as EngineRequest
from novacron.testing.fake_engine_client import FakeEngineClient

KEYS = ("sk-first", "sk-second", "sk-third")
# the tenant that this key has always been: blocks on disk are found by it
FIRST_TENANT = "tenant:6e1282803ce6cc885f0a88392ee41c8731bfa2e45a16b3f1b66dd21c9b31f831"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


async def caller_with(key: str, keys: tuple[str, ...], shares: tuple[KeyShare, ...] = ()) -> Caller:
    principal = await ConfiguredKeys(keys, shares).authenticate(key.encode())
    assert principal is not None
    return caller_of(principal)


async def test_where_there_is_one_key_or_none_everyone_shares() -> None:
    for caller in (
        caller_of(None),
        await caller_with("sk-first", ("sk-first",)),
        await caller_with("sk-first", ("sk-first", "sk-first")),
    ):
        assert caller == EVERYONE
        assert scope_of(caller, None, None) == CacheScope()


async def test_each_of_several_keys_has_a_scope_of_its_own_that_stays() -> None:
    scopes = [scope_of(await caller_with(key, KEYS), None, None) for key in KEYS]
    assert len({scope.salt for scope in scopes}) == len({scope.tag for scope in scopes}) == 3
    assert scopes[0].salt == FIRST_TENANT + "\x00"
    assert all(len(scope.tag) == 8 for scope in scopes)
    again = [scope_of(await caller_with(key, KEYS[::-1]), None, None) for key in KEYS]
    assert again == scopes, "blocks on disk would be lost"
    assert not any(key in scope.salt for key in KEYS for scope in scopes)


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.text()), min_size=2, max_size=2))
def test_different_tenants_and_salts_never_share(callers: list[tuple[str, str]]) -> None:
    one, other = (scope_of(Caller(tenant), salt, None) for tenant, salt in callers)
    tenants = {tenant for tenant, _ in callers}
    if tenants == {""} or len(tenants) == 1:
        assert (one.salt == other.salt) == (callers[0] == callers[1])
    if "" not in tenants:
        assert (one.salt == other.salt) == (callers[0] == callers[1])
        assert (one.tag == other.tag) == (len(tenants) == 1), "salts do not make a share larger"


def test_what_is_public_has_no_salt() -> None:
    assert scope_of(Caller("tenant"), None, "public") == CacheScope()
    with pytest.raises(InvalidRequest, match="cache_salt"):
        scope_of(EVERYONE, "salt", "public")


def test_a_session_belongs_to_its_tenant() -> None:
    tags = [session_tag(Caller(tenant), "s") for tenant in ("", "a", "b")]
    assert len(set(tags)) == 3
    assert session_tag(Caller("a"), "s") == tags[1]
    assert session_tag(Caller("a"), None) == session_tag(Caller("a"), "") == b""


async def test_the_first_key_is_the_operators() -> None:
    (await caller_with("sk-first", KEYS)).require_operator("This")
    with pytest.raises(Forbidden, match="first"):
        (await caller_with("sk-second", KEYS)).require_operator("This")
    (await caller_with("sk-first", KEYS[:1])).require_operator("This")


async def test_keys_have_their_shares_and_others_the_usual_one() -> None:
    shares = parse_key_shares(("1", "4:high"))
    callers = [await caller_with(key, KEYS, shares) for key in KEYS]
    assert [(one.weight, one.priority) for one in callers] == [(1, 0), (4, -10), (1, 0)]


@pytest.mark.parametrize(
    ("is_operator", "own", "asked", "given"),
    [
        (False, 0, None, 0),
        (False, 0, -10, 0),  # at the expense of others
        (False, 0, 10, 10),
        (False, -10, None, -10),
        (False, -10, -20, -10),
        (False, 10, 0, 10),
        (True, 0, -20, -20),
    ],
)
def test_only_operators_get_more_urgent_than_they_are(
    is_operator: bool, own: int, asked: int | None, given: int
) -> None:
    caller = Caller("tenant", is_operator, priority=own)
    assert caller.priority_of(asked) == given


async def test_requests_carry_the_scope_and_session_of_their_key(
    client: FakeEngineClient, make_http
) -> None:
    config = ServerConfig(api_key=KEYS)
    http: httpx2.AsyncClient = make_http(build_app(client, config, model_names=("fake",)))

    async def send(key: str, path: str, **fields: object) -> None:
        headers = {"x-api-key": key}
        answer = await http.post(path, json={**CHAT, "prompt": "hi", **fields}, headers=headers)
        assert answer.status_code == 200, answer.text

    for path in ("/v1/chat/completions", "/v1/completions", "/api/v1/llm/chat/completions"):
        client.submitted.clear()
        await send("sk-first", path, session_id="talk")
        await send("sk-second", path, session_id="talk")
        await send("sk-second", path, cache_scope="public")
        first, second, public = client.submitted
        expected = scope_of(await caller_with("sk-first", KEYS), None, None)
        assert (first.cache_salt, first.cache_scope) == (expected.salt, expected.tag)
        assert first.session != second.session
        assert first.cache_scope != second.cache_scope
        assert (public.cache_salt, public.cache_scope, public.session) == ("", b"", b"")
    both = await http.post(
        "/v1/chat/completions",
        json={**CHAT, "cache_salt": "x", "cache_scope": "public"},
        headers={"x-api-key": "sk-first"},
    )
    assert (both.status_code, both.json()["error"]["param"]) == (400, "cache_scope")


async def test_requests_carry_tenant_weight_priority_and_objectives(
    client: FakeEngineClient, make_http
) -> None:
    config = ServerConfig(api_key=KEYS, api_key_shares=("1", "2:high", "1:low"))
    http: httpx2.AsyncClient = make_http(build_app(client, config, model_names=("fake",)))

    async def send(key: str, path: str, **fields: object) -> EngineRequest:
        body = {**CHAT, "prompt": "hi", "input": "hi", **fields}
        answer = await http.post(path, json=body, headers={"x-api-key": key})
        assert answer.status_code == 200, answer.text
        return client.submitted[-1]

    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
        one = await send("sk-second", path, priority=-20)
        assert (one.weight, one.priority) == (2.0, -10)
        assert one.tenant == (await caller_with("sk-second", KEYS)).tenant
        assert (await send("sk-third", path)).priority == 10
        assert (await send("sk-first", path, priority=-20)).priority == -20
    path = "/api/v1/llm/chat/completions"
    one = await send("sk-first", path, priority="low", slo_class="interactive", tpot_slo=0.01)
    assert (one.priority, one.ttft_slo_s, one.tpot_slo_s) == (10, 0.5, 0.01)
    refused = await http.post(
        path, json={**CHAT, "slo_class": "soon"}, headers={"x-api-key": "sk-first"}
    )
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "slo_class")
