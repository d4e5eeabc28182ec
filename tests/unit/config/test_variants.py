from __future__ import annotations

import pytest

from novacron.config.engine import EngineConfig, SharedDevice
from novacron.config.model import ModelConfig
from novacron.config.variants import Variant, parse_variants
from novacron.errors import ConfigError


def test_an_entry_is_a_precision_of_weights_and_maybe_one_of_the_cache() -> None:
    assert parse_variants(("int8", " INT4:int8/int4 ")) == (
        Variant("int8"),
        Variant("int4", "int8/int4"),
    )
    assert [one.name for one in parse_variants(("none", "int8:fp8"))] == ["none", "int8:fp8"]


@pytest.mark.parametrize("entry", ["auto", "int3", "", "int8:", "int8:int3", "int8:int8/", ":int8"])
def test_anything_else_is_refused_with_what_there_is(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"variants has .*QUANTIZATION is one of none, fp32"):
        ModelConfig(variants=(entry,))


def test_a_precision_is_named_once() -> None:
    with pytest.raises(ConfigError, match="variants has 'int8' twice"):
        ModelConfig(variants=("int8", "INT8"))


def test_the_first_measurement_of_a_shared_device_counts_for_all() -> None:
    alone = EngineConfig()
    assert alone.after_measuring(7) is alone, "it measures anew whenever it starts"
    shared = EngineConfig(shared=SharedDevice(others=(Variant("int8"),)))
    measured = shared.after_measuring(7)
    assert measured.shared.free_bytes == 7
    assert measured.after_measuring(5).shared.free_bytes == 7
