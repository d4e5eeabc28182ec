"""Typed reading of a checkpoint's config.json, with errors that name the file and the key.

Both layouts occur in published checkpoints: that of transformers 5 (`dtype`, `rope_parameters`) and
the older one (`torch_dtype`, `rope_theta` and `rope_scaling`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from novacron.errors import ModelLoadError

UNFINISHED = "quantize.json"  # stands in a folder until novacron quantize has finished it

T = TypeVar("T", int, float, bool, str)


class HFConfig:
    """The JSON object of one config.json, or a section of it. A null counts as left out."""

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        self._values = {key: value for key, value in values.items() if value is not None}
        self._where = where

    def has(self, key: str) -> bool:
        return key in self._values

    @property
    def values(self) -> Mapping[str, object]:
        return self._values

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._values)

    def integer(self, key: str, default: int | None = None) -> int:
        return self._typed(key, int, default)

    def optional_integer(self, key: str) -> int | None:
        return self.integer(key) if self.has(key) else None

    def size(self, key: str, default: int | None = None) -> int:
        """An integer that must be positive."""
        value = self.integer(key, default)
        if value <= 0:
            raise self.error(f"'{key}' is {value}, not a positive number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        return self._typed(key, float, default)

    def optional_number(self, key: str) -> float | None:
        return self.number(key) if self.has(key) else None

    def flag(self, key: str, default: bool | None = None) -> bool:
        return self._typed(key, bool, default)

    def text(self, key: str, default: str | None = None) -> str:
        return self._typed(key, str, default)

    def texts(self, key: str) -> tuple[str, ...]:
        return self._list(key, str)

    def integers(self, key: str) -> tuple[int, ...]:
        return self._list(key, int)

    def numbers(self, key: str) -> tuple[float, ...]:
        return self._list(key, float)

    def section(self, key: str) -> HFConfig:
        value = self._values.get(key, {})
        if not isinstance(value, dict):
            raise self.error(f"'{key}' is {value!r}, not an object")
        return HFConfig(value, f"{self._where}: '{key}'")

    @property
    def dtype(self) -> str | None:
        """The precision of the weights, if the file names it."""
        for values in (self, self.section("text_config")):
            for key in ("dtype", "torch_dtype"):
                if values.has(key):
                    return values.text(key).removeprefix("torch.")
        return None

    def integer_or_list(self, key: str) -> tuple[int, ...]:
        """For keys that hold either one number or several."""
        if isinstance(self._values.get(key, []), list):
            return self.integers(key)
        return (self.integer(key),)

    def with_defaults(self, values: Mapping[str, object]) -> HFConfig:
        """This object, with `values` for keys that it leaves out."""
        return HFConfig({**values, **self._values}, self._where)

    def error(self, reason: str) -> ModelLoadError:
        return ModelLoadError(f"{self._where}: {reason}.")

    def _typed(self, key: str, kind: type[T], default: T | None) -> T:
        value = self._values.get(key, default)
        if value is None:
            raise self.error(f"'{key}' is missing")
        return self._checked(key, value, kind)

    def _list(self, key: str, kind: type[T]) -> tuple[T, ...]:
        values = self._values.get(key, [])
        if not isinstance(values, list):
            raise self.error(f"'{key}' is {values!r}, not a list")
        return tuple(self._checked(key, value, kind) for value in values)

    def _checked(self, key: str, value: object, kind: type[T]) -> T:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return kind(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(f"'{key}' is {value!r}, which is not a {_KIND_NAMES[kind]}")
        return value


_KIND_NAMES: Mapping[type, str] = {
    int: "whole number",
    float: "number",
    bool: "truth value",
    str: "string",
}


def read_hf_config(folder: Path) -> HFConfig:
    """The config.json of a model folder. Raises ModelLoadError."""
    config = _read_json(folder / "config.json")
    if config is None:
        raise ModelLoadError(
            f"{folder / 'config.json'} is missing: {folder} is no model folder in Hugging Face "
            f"layout.{_gguf_hint(folder)}"
        )
    return config


def _gguf_hint(folder: Path) -> str:
    files = sorted(path.name for path in folder.glob("*.gguf"))
    return f" It holds GGUF files; name one of them: {', '.join(files)}." if files else ""


def read_eos_token_ids(folder: Path) -> tuple[int, ...]:
    """The tokens that end a text, as config.json and generation_config.json name them."""
    config = read_hf_config(folder)
    generation = _read_json(folder / "generation_config.json") or HFConfig({}, "")
    sources = (config, config.section("text_config"), generation)
    return tuple(
        dict.fromkeys(
            token_id for source in sources for token_id in source.integer_or_list("eos_token_id")
        )
    )


def _read_json(path: Path) -> HFConfig | None:
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ModelLoadError(f"{path} is not a JSON object.")
    return HFConfig(values, str(path))
