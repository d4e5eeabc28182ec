"""Write docs/configuration.md: every setting, read off the code.

make docs
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args, get_origin

from novacron.config.explain import text_of
from novacron.config.foreign_keys import LLM_ENGINE, VLLM, NoEffect, OnlyOff, Sets, Treatment
from novacron.config.keys import KEYS, Key

TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

INTRODUCTION = """\
# Configuration

Written by `make docs` from the code; a test fails if it is out of date.

Nothing has to be set. What is set comes from four places; the first that gives a value wins:

1. flags: `novacron serve --max-num-seqs 16`
2. environment: `NOVACRON_MAX_NUM_SEQS=16` (an empty variable counts as not given; lists have commas
   between the parts; `VLLM_API_KEY` is read where `NOVACRON_API_KEY` is not given)
3. a YAML file: `--config serve.yaml`, or `NOVACRON_CONFIG=serve.yaml`
4. the default

`novacron config explain` takes the same flags, file and environment as `novacron serve` and prints
every value with its origin; `--json` for programs. Secrets are masked.

Sizes are written as in Kubernetes (`64Gi`, `500M`), durations with units (`200ms`, `1h30m`).

## Configuration file

Keys stand under their component, or flat, with dashes or underscores:

```yaml
model:
  model: /models/Qwen3-0.6B
scheduler:
  max_num_seqs: 16
port: 9000            # flat
```

`kv_tiers` lists the KV tiers below the device, fastest first, instead of the keys `kv_ram_size`,
`kv_disk_size` and so on; a kind that is not in the list is off ([KV tiers](kv-tiers.md)):

```yaml
kv_tiers:
  - {kind: ram, size: 4Gi}
  - {kind: disk, path: /var/cache/novacron, size: 20Gi}
  - {kind: redis, url: "redis://cache:6379/0", ttl: 24h}
  - {kind: object, url: "s3://bucket/prefix"}
```

`guardians` and `specialists` are lists, too ([guardians](guardians.md)):

```yaml
guardians:
  - {kind: pii, stage: [input, stream], mode: enforce, action: mask}
```

An entry of `kv_tiers` for RAM or disk may say `compression` and `max_error` (`kv_ram_compression`,
`kv_disk_max_error` and so on).

A file of flags for vLLM works as well where the meaning is the same, and so does the root
`llm_engine:` below. An unknown key, a wrong type or a key given twice is an error that names file
and place. An unknown `NOVACRON_` variable is a warning.
"""

TITLES = {
    "model": "Model",
    "cache": "KV cache",
    "scheduler": "Scheduler",
    "speculative": "Speculation",
    "watch": "Quality watch",
    "guard": "Guardians and specialists",
    "cluster": "Several hosts",
    "server": "Server",
    "identity": "Identity",
    "tenants": "Tenants",
}


def main() -> None:
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(document())
    print(f"{TARGET.name}: {len(KEYS)} settings")


def document() -> str:
    parts = [INTRODUCTION, "## Settings\n"]
    for component, keys in groupby(KEYS.values(), key=lambda key: key.component):
        parts.append(f"### {TITLES[component]} (`{component}:`)\n")
        parts.append(table(("key", "value", "default", "meaning"), [setting(key) for key in keys]))
    parts.append("## Keys of vLLM beside those of the same name\n")
    parts.append(table(("key", "what becomes of it"), foreign("", VLLM)))
    parts.append("## The root `llm_engine:`\n")
    parts.append(
        "What would change results or capacity and cannot be done yet is refused. The rest is "
        "checked, and reported as without effect by `config explain` and at start.\n"
    )
    parts.append(table(("key", "what becomes of it"), foreign("llm_engine.", LLM_ENGINE)))
    return "\n".join(parts)


def setting(key: Key) -> tuple[str, ...]:
    default = text_of(key, key.default)
    return (f"`{key.name}`", value_kind(key), "" if default == "-" else f"`{default}`", key.meaning)


def value_kind(key: Key) -> str:
    kinds = get_args(key.annotation) or (key.annotation,)
    if get_origin(key.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in kinds)
    if key.unit:
        return "size" if key.unit == "bytes" else "duration"
    if key.is_list:
        return "list of texts"
    if get_origin(key.annotation) is tuple:
        return "list of mappings"
    names = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    return next(name for kind, name in names.items() if kind in kinds)


def foreign(prefix: str, keys: Mapping[str, Treatment]) -> list[tuple[str, ...]]:
    return [(f"`{prefix}{name}`", fate(treatment)) for name, treatment in keys.items()]


def fate(treatment: Treatment) -> str:
    match treatment:
        case Sets(key):
            return f"sets `{KEYS[key].path}`"
        case NoEffect(_, reason):
            return f"no effect: {reason}"
        case OnlyOff(values, reason):
            return f"only `{str(values[0]).lower()}`: {reason}"


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    main()
