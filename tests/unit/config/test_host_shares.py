from __future__ import annotations

import pytest

from novacron.config.engine import EngineConfig, RanksApart
from novacron.config.host_shares import of_replica, refuse_other_number_of_hosts
from novacron.config.model import ModelConfig
from novacron.errors import ConfigError


def config(hosts: str, **model: int) -> EngineConfig:
    return EngineConfig(model=ModelConfig(**model), apart=RanksApart(hosts=tuple(hosts)))  # type: ignore[arg-type]


def test_each_replica_has_hosts_of_its_own_in_their_order() -> None:
    stages = config("abcd", pipeline_parallel_size=3, tensor_parallel_size=2, data_parallel_size=2)
    refuse_other_number_of_hosts(stages, 2)
    assert [of_replica(stages, number).apart.hosts for number in (0, 1)] == [
        ("a", "b"), ("c", "d"),
    ]  # fmt: skip
    slices = config("abc", tensor_parallel_size=2, data_parallel_size=3)
    refuse_other_number_of_hosts(slices, 3)
    assert of_replica(slices, 2).apart.hosts == ("c",)


def test_without_hosts_nothing_is_refused_or_shared_out() -> None:
    alone = config("", pipeline_parallel_size=2, data_parallel_size=2)
    refuse_other_number_of_hosts(alone, 2)
    assert of_replica(alone, 1) == alone


@pytest.mark.parametrize(
    ("hosts", "sizes", "advice"),
    [
        ("a", {"pipeline_parallel_size": 3}, "name 2, or set pipeline_parallel_size to 2"),
        ("a", {}, "pipeline_parallel_size to 2"),
        ("ab", {"tensor_parallel_size": 2}, "name 1, or set pipeline_parallel_size to 3"),
        (
            "abc",
            {"pipeline_parallel_size": 2, "data_parallel_size": 2},
            "data_parallel_size 2.*for each replica in turn: name 2",
        ),
    ],
)
def test_another_number_is_refused_with_what_would_do(
    hosts: str, sizes: dict[str, int], advice: str
) -> None:
    with pytest.raises(ConfigError, match=advice):
        refuse_other_number_of_hosts(config(hosts, **sizes), sizes.get("data_parallel_size", 1))
