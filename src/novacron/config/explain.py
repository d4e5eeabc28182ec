"""What `novacron config explain` prints: every setting, its value, its origin and its meaning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from novacron.config.keys import KEYS, Key
from novacron.config.layer import Origin
from novacron.config.load import Settings
from novacron.config.quantities import format_bytes
from novacron.config.url_secrets import mask_url

MASK = "***"


@dataclass(frozen=True)
class Row:
    """`value` is fit for JSON, and hides secrets."""

    key: str
    value: object
    text: str
    origin: Origin
    meaning: str


def explain(settings: Settings) -> list[Row]:
    """A row for every setting, then one for every key that was given and has no effect."""
    rows = [_row(key, settings) for key in KEYS.values()]
    ignored = [
        Row(one.key, one.value, str(one.value), one.origin, f"no effect: {one.reason}")
        for one in settings.without_effect
    ]
    return rows + ignored


def value_of(key: Key, settings: Settings) -> object:
    beside = ("server", "identity", "guard", "cluster", "tenants")
    holder = settings if key.component in beside else settings.engine
    component = getattr(holder, key.component)
    value: object = getattr(component, key.name)
    return value


def _row(key: Key, settings: Settings) -> Row:
    value = value_of(key, settings)
    if key.secret and isinstance(value, tuple):
        value = (MASK,) * len(value)
    elif key.secret and isinstance(value, str):
        value = mask_url(value) if "://" in value else MASK * bool(value)
    elif isinstance(value, tuple) and not key.is_list:
        value = [_without_secrets(part) for part in value]
    return Row(key.path, value, text_of(key, value), settings.origins[key.name], key.meaning)


def _without_secrets(part: Mapping[str, object]) -> dict[str, object]:
    """A guardian may have a token, and an address with a password."""
    masked = dict(part)
    if masked.get("token"):
        masked["token"] = MASK
    if isinstance(masked.get("url"), str):
        masked["url"] = mask_url(str(masked["url"]))
    return masked


def text_of(key: Key, value: object) -> str:
    """The value as one would write it in the environment; a dash where nothing is set."""
    if value in (None, "", (), []):
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(value) if key.is_list else json.dumps(value, ensure_ascii=False)
    if key.unit == "bytes" and isinstance(value, int):
        return format_bytes(value)
    if key.unit == "s":
        return f"{value:g}s"
    return str(value)


def render_table(rows: list[Row]) -> str:
    """Columns of plain text, for a terminal or a pipe."""
    cells = [("KEY", "VALUE", "ORIGIN", "MEANING")]
    cells += [(row.key, row.text, str(row.origin), row.meaning) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(3)]
    return "\n".join(
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3]]
        )
        for line in cells
    )


def render_json(rows: list[Row]) -> str:
    return json.dumps(
        [
            {
                "key": row.key,
                "value": row.value,
                "origin": row.origin.kind,
                "origin_detail": row.origin.detail,
                "meaning": row.meaning,
            }
            for row in rows
        ],
        indent=2,
    )
