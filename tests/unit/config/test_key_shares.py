from __future__ import annotations

import pytest

from novacron.config.key_shares import KeyShare, parse_key_shares
from novacron.config.server import ServerConfig
from novacron.errors import ConfigError


def test_a_share_is_a_weight_and_perhaps_a_priority() -> None:
    shares = parse_key_shares(("2", "0.5:low", "1:-3", "1:HIGH"))
    assert shares == (KeyShare(2), KeyShare(0.5, 10), KeyShare(1, -3), KeyShare(1, -10))


@pytest.mark.parametrize("text", ["", "0", "-1", "inf", "nan", "high", "1:", "1:urgent"])
def test_what_is_no_share_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(ConfigError, match=f"api_key_shares has '{text}': write a weight"):
        parse_key_shares((text,))


def test_there_are_no_more_shares_than_keys() -> None:
    assert ServerConfig(api_key=("a", "b"), api_key_shares=("2",)).key_shares == (KeyShare(2),)
    with pytest.raises(ConfigError, match="there are 1 keys"):
        ServerConfig(api_key=("a",), api_key_shares=("2", "1"))
