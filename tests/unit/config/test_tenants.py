"""What may become of a tenant's data, as settings say it."""

from __future__ import annotations

import pytest

from novacron.config.privacy import may_be_in
from novacron.config.tenants import parse_policies
from novacron.errors import ConfigError


def test_a_tenant_has_its_own_policy_or_everyone_elses() -> None:
    policies = parse_policies(
        (
            {"name": "acme", "record_prompts": True, "retain": {"prompts": "7d", "usage": "1h"}},
            {"name": "*", "regions": ["eu", "us"], "response_cache": "semantic"},
        )
    )
    acme = policies.of("acme")
    assert (acme.record_prompts, acme.regions, acme.response_cache) == (True, (), "exact")
    assert acme.retain_s == {"prompts": 7 * 86400.0, "usage": 3600.0}
    assert policies.of("other").regions == ("eu", "us")
    assert policies.record_prompts
    assert policies.retains


def test_without_policies_nothing_is_kept_and_only_who_is_alone_takes_part_by_meaning() -> None:
    policies = parse_policies(())
    assert not policies.record_prompts
    assert not policies.retains
    assert (policies.of("").response_cache, policies.of("acme").response_cache) == (
        "semantic",
        "exact",
    )
    assert parse_policies(({"name": "default", "response_cache": False},)).of("") != policies.of("")


@pytest.mark.parametrize(
    "wrong",
    [
        ({},),
        ({"name": "a"}, {"name": "a"}),
        ({"name": "a", "record_prompt": True},),
        ({"name": "a", "record_prompts": "yes"},),
        ({"name": "a", "response_cache": "all"},),
        ({"name": "a", "regions": ["e u"]},),
        ({"name": "a", "retain": ["audit"]},),
        ({"name": "a", "retain": {"logs": "1d"}},),
        ({"name": "a", "retain": {"audit": "soon"}},),
        ({"name": "a", "retain": {"audit": 0}},),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_with_the_setting(wrong: tuple[dict[str, object]]) -> None:
    with pytest.raises(ConfigError, match=r"^tenant_policies cannot be used"):
        parse_policies(wrong)


def test_a_place_that_does_not_say_where_it_is_is_in_no_region() -> None:
    assert may_be_in("", ())
    assert not may_be_in("", ("eu",))
    assert may_be_in("eu", ("us", "eu"))
