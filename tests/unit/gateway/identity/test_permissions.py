from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.gateway.identity.permissions import (
    BUILT_IN,
    PERMISSIONS,
    ROLES,
    Roles,
    expand,
    granted,
    unknown,
)

patterns = st.sets(
    st.sampled_from(
        [*PERMISSIONS, "llm:*", "*", "llm:keys:*", "llm:keys", "", ":*", "LLM:*", "llm*"]
    )
)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", set(PERMISSIONS)),
        ("llm:*", set(PERMISSIONS)),
        ("llm:keys:*", {"llm:keys:read", "llm:keys:write"}),
        ("llm:keys:read", {"llm:keys:read"}),
        ("llm:key*", set()),
        ("llm:keys", set()),
        ("llm:keys:", set()),
        ("LLM:keys:read", set()),
        ("", set()),
    ],
)
def test_patterns(pattern: str, expected: set[str]) -> None:
    assert expand((pattern,)) == expected
    assert unknown((pattern,)) == (() if expected else (pattern,))


def test_the_built_in_roles_say_only_what_there_is() -> None:
    for name, patterns in ROLES.items():
        assert unknown(patterns) == (), name


def test_only_administrators_make_keys() -> None:
    may = {name for name in ROLES if "llm:keys:write" in BUILT_IN.permissions_of((name,))}
    assert may == {"admin"}
    assert BUILT_IN.permissions_of(("nobody", "Admin", "")) == frozenset()


def test_a_custom_role_adds_and_never_replaces() -> None:
    roles = Roles({"user": ("llm:*",), "scraper": ("llm:metrics:read",)})
    assert roles.permissions_of(("user",)) == BUILT_IN.permissions_of(("user",))
    assert roles.permissions_of(("scraper",)) == {"llm:metrics:read"}


@given(patterns, patterns)
def test_scopes_only_ever_narrow(role: set[str], scopes: set[str]) -> None:
    held = expand(role)
    may = granted(held, scopes)
    assert may <= held
    assert may == (held & expand(scopes) if scopes else held)


@given(patterns, patterns)
def test_more_patterns_never_allow_less(some: set[str], more: set[str]) -> None:
    assert expand(some) <= expand(some | more) == expand(some) | expand(more)
