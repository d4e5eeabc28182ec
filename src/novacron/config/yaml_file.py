"""Reading a configuration file. What the keys mean is not known here."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import yaml

from novacron.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key may stand only once; YAML itself would keep the last, silently."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_mapping(file: Path) -> dict[object, object]:
    """The mapping a YAML (or JSON) file holds; an empty file holds none. Raises ConfigError."""
    try:
        content = yaml.load(file.read_bytes(), _Loader)  # nosec B506 # a SafeLoader
    except OSError as error:
        raise ConfigError(
            f"The configuration file {file} cannot be read: {error.strerror}."
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"The configuration file {file} is not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"The configuration file {file} holds a {type(content).__name__}; expected keys and "
            "values, such as `max_num_seqs: 64`."
        )
    return content
