from __future__ import annotations

import pytest

from novacron.config.cache import CacheConfig
from novacron.config.kv_layers import KVPrecision, choose_kv_dtypes
from novacron.errors import ConfigError

BF16 = KVPrecision("bfloat16", "bfloat16")


def chosen(
    *layers: str, default: str = "int8", num_layers: int = 5, auto: KVPrecision = BF16
) -> str:
    cache = CacheConfig(kv_cache_dtype=default, kv_cache_dtype_layers=layers)
    dtypes = choose_kv_dtypes(cache, num_layers, auto)
    return " ".join(key if key == value else f"{key}/{value}" for key, value in dtypes)


def test_every_layer_has_the_dtype_of_the_cache_or_of_the_model() -> None:
    assert chosen() == "int8 int8 int8 int8 int8"
    assert chosen(default="auto", num_layers=2) == "bfloat16 bfloat16"
    assert chosen(default="BF16 ", num_layers=1) == "bfloat16"


def test_keys_and_values_apart() -> None:
    assert chosen(default="int8/int4", num_layers=1) == "int8/int4"
    assert chosen(default="auto/int8", num_layers=1) == "bfloat16/int8"
    assert chosen(default="int8/int8", num_layers=1) == "int8"
    assert chosen("0=fp16/fp8", "-1=auto/int4", num_layers=3) == ("float16/fp8 int8 bfloat16/int4")


def test_auto_is_apart_for_keys_and_values_too() -> None:
    auto = KVPrecision("int8", "int4")
    assert chosen(default="auto", num_layers=1, auto=auto) == "int8/int4"
    assert chosen(default="auto/bf16", num_layers=1, auto=auto) == "int8/bfloat16"
    assert chosen("1=auto", "2=bf16/auto", num_layers=3, default="fp8", auto=auto) == (
        "fp8 int8/int4 bfloat16/int4"
    )


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (("0=bf16",), "bfloat16 int8 int8 int8 int8"),
        (("-1=bf16",), "int8 int8 int8 int8 bfloat16"),
        ((":2=fp16", "-2:=fp8"), "float16 float16 int8 fp8 fp8"),
        (("1:3=int4",), "int8 int4 int4 int8 int8"),
        ((":=int4", "-2=float32"), "int4 int4 int4 float32 int4"),
        ((":=int4", "1:3=int8/int4", "2=auto"), "int4 int8/int4 bfloat16 int4 int4"),
    ],
)
def test_layers_are_named_as_python_names_places(layers: tuple[str, ...], expected: str) -> None:
    assert chosen(*layers) == expected


@pytest.mark.parametrize("name", ["", "int5", "int8/", "/int8", "int8/int4/int4", "int8,int4"])
def test_no_precision_is_refused_at_once(name: str) -> None:
    with pytest.raises(ConfigError, match=r"kv_cache_dtype is .* for example int8/int4"):
        CacheConfig(kv_cache_dtype=name)


@pytest.mark.parametrize(
    "entry",
    ["", "bf16", "0", "=bf16", "0=int5", "0-2=bf16", "1 2=bf16", "0=int8/", "0=/int8", "0=int8/x"],
)
def test_anything_else_is_refused_at_once(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"kv_cache_dtype_layers has .* for example 0=bf16"):
        CacheConfig(kv_cache_dtype_layers=(entry,))


@pytest.mark.parametrize("entry", ["5=bf16", "-6=bf16", "7:=bf16"])
def test_a_layer_that_the_model_lacks_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match="no layer of this model: it has 5, 0 to 4"):
        chosen(entry)
