from __future__ import annotations

import json
from pathlib import Path

import pytest

from novacron.errors import ModelLoadError
from novacron.models.hf_config import HFConfig, read_eos_token_ids, read_hf_config


@pytest.fixture
def config() -> HFConfig:
    values = {"layers": 3, "eps": 1, "tied": True, "kind": "x", "none": None, "list": [1, "a"]}
    return HFConfig(values, "folder/config.json")


def test_typed_values_and_defaults(config: HFConfig) -> None:
    assert config.integer("layers") == 3
    assert config.number("eps") == 1.0
    assert config.flag("tied") is True
    assert config.text("kind") == "x"
    assert config.integer("absent", 7) == 7
    assert config.integer("none", 7) == 7, "null counts as left out"
    assert config.optional_integer("none") is None
    assert config.integers("absent") == ()


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda c: c.integer("absent"), "folder/config.json: 'absent' is missing"),
        (lambda c: c.integer("kind"), "'kind' is 'x', which is not a whole number"),
        (lambda c: c.integer("tied"), "'tied' is True, which is not a whole number"),
        (lambda c: c.integers("list"), "'list' is 'a', which is not a whole number"),
        (lambda c: c.texts("kind"), "'kind' is 'x', not a list"),
        (lambda c: c.section("kind"), "'kind' is 'x', not an object"),
        (lambda c: c.size("absent", 0), "'absent' is 0, not a positive number"),
    ],
)
def test_errors_name_file_and_key(config: HFConfig, read: object, message: str) -> None:
    assert callable(read)
    with pytest.raises(ModelLoadError) as caught:
        read(config)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"text_config": {"dtype": "float32"}}, "float32"),
        ({}, None),
    ],
)
def test_dtype_in_either_layout(values: dict[str, object], dtype: str | None) -> None:
    assert HFConfig(values, "").dtype == dtype


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        (b"{", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[1]", "is not a JSON object"),
    ],
)
def test_unreadable_files(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=message) as caught:
        read_hf_config(tmp_path)
    assert str(path) in str(caught.value)


def test_eos_token_ids_come_from_both_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 7}))
    assert read_eos_token_ids(tmp_path) == (7,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [8, 7]}))
    assert read_eos_token_ids(tmp_path) == (7, 8)
