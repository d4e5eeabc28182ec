"""The settings that a configuration file gives.

Three forms, which may be mixed: our keys under their component (`scheduler: {max_num_seqs: 8}`),
flat keys in our names or those of vLLM's flags (`max-num-seqs: 8`), and the root `llm_engine:`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from novacron.config.foreign_keys import LLM_ENGINE, VLLM, NoEffect, OnlyOff, Sets, Treatment
from novacron.config.keys import COMPONENTS, KEYS, Key
from novacron.config.kv_tier_list import read_tier_list
from novacron.config.layer import Layer, Origin, WithoutEffect, did_you_mean
from novacron.config.yaml_file import read_mapping
from novacron.errors import ConfigError

_TIERS = "kv_tiers"
_PATHS = [key.path for key in KEYS.values()]
_TOP_LEVEL = ["llm_engine", _TIERS, *COMPONENTS, *KEYS, *VLLM]
_LLM_ENGINE_PATHS = sorted(
    f"llm_engine.{path.rsplit('.', depth)[0]}" for path in LLM_ENGINE for depth in range(3)
)


def file_layer(file: Path) -> Layer:
    """What a configuration file sets. Raises ConfigError."""
    layer = Layer()
    for name, value in read_mapping(file).items():
        if name == "llm_engine":
            _apply_llm_engine(layer, file, "llm_engine", value)
        elif name in COMPONENTS and isinstance(value, dict | None):
            own = {key.name: key for key in KEYS.values() if key.component == name}
            for inner, inner_value in (value or {}).items():
                _apply(layer, file, f"{name}.{inner}", str(inner), inner_value, own)
        else:
            _apply(layer, file, str(name), str(name), value, KEYS)
    return layer


def _apply(
    layer: Layer, file: Path, path: str, written: str, value: object, allowed: Mapping[str, Key]
) -> None:
    """Take up one of our keys or of vLLM's; max-num-seqs and max_num_seqs are the same."""
    name = written.replace("-", "_")
    if name == _TIERS and "kv_ram_size" in allowed:
        _apply_tiers(layer, file, path, value)
    elif name in allowed:
        if value is not None:
            layer.set(allowed[name], value, Origin("file", f"{file}: {path}"))
    elif name in VLLM:
        _treat(layer, file, path, value, VLLM[name])
    else:
        raise _unknown(file, path, _PATHS if "." in path else _TOP_LEVEL)


def _apply_tiers(layer: Layer, file: Path, path: str, value: object) -> None:
    if value is None:
        return
    origin = Origin("file", f"{file}: {path}")
    try:
        settings = list(read_tier_list(value))
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}.") from None  # no value: it may hold keys
    for name, inner in settings:
        layer.set(KEYS[name], inner, origin)


def _apply_llm_engine(layer: Layer, file: Path, path: str, value: object) -> None:
    """Take up a part of the `llm_engine:` schema, a group or a single value."""
    inside = path.removeprefix("llm_engine").removeprefix(".")
    if inside in LLM_ENGINE:
        _treat(layer, file, path, value, LLM_ENGINE[inside])
    elif any(known.startswith(f"{inside}." if inside else "") for known in LLM_ENGINE):
        if not isinstance(value, dict | None):
            raise ConfigError(f"{path} in {file} is {value!r}: expected keys below it.")
        for name, inner in (value or {}).items():
            _apply_llm_engine(layer, file, f"{path}.{name}", inner)
    else:
        raise _unknown(file, path, _LLM_ENGINE_PATHS)


def _treat(layer: Layer, file: Path, path: str, value: object, treatment: Treatment) -> None:
    origin = Origin("file", f"{file}: {path}")
    if value is None:
        return
    match treatment:
        case Sets(name):
            layer.set(KEYS[name], value, origin)
        case NoEffect(check, reason):
            try:
                check(value)
            except ConfigError as error:
                raise ConfigError(f"{path} is {value!r} ({origin}): {error}") from None
            layer.without_effect.append(WithoutEffect(path, value, origin, reason))
        case OnlyOff(off, reason):
            if str(value).lower() not in {str(one).lower() for one in off}:
                raise ConfigError(
                    f"{path} is {value!r} ({origin}), but {reason}. "
                    f"Set it to {str(off[0]).lower()}, or remove it."
                )


def _unknown(file: Path, path: str, candidates: Iterable[str]) -> ConfigError:
    misplaced = KEYS.get(path.rpartition(".")[2].replace("-", "_"))
    hint = f" Did you mean '{misplaced.path}'?" if misplaced else did_you_mean(path, candidates)
    return ConfigError(
        f"Unknown key '{path}' in {file}.{hint} `novacron config explain` lists all keys."
    )
