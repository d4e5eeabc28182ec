"""Command-line options made from the settings in config/, so that no setting is declared twice.

Values stay text: config/load.py knows what they must be, and says so in one voice for flags,
environment and file. Both max-num-seqs and max_num_seqs are understood.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from novacron.config.explain import text_of
from novacron.config.keys import KEYS, Key
from novacron.config.load import Settings, load

_TITLES = {
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


class SettingOption(click.Option):
    """The option of one setting."""

    def __init__(self, key: Key) -> None:
        self.key = key
        is_switch = key.annotation is bool
        is_list = key.is_list
        flag = f"{key.flag}/--no-{key.flag.removeprefix('--')}" if is_switch else key.flag
        super().__init__(
            [key.name, *dict.fromkeys((flag, *key.flags))],
            default=None,
            type=click.BOOL if is_switch else click.STRING,
            metavar=None if is_switch else _metavar(key),
            multiple=is_list,
            callback=_split if is_list else None,
            help=_help(key),
        )


class SettingsCommand(click.Command):
    """A command whose help lists the settings under the component they belong to."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records: dict[str, list[tuple[str, str]]] = {"Options": []}
        for option in self.get_params(ctx):
            if isinstance(option, click.Argument):  # explained in the text above
                continue
            component = option.key.component if isinstance(option, SettingOption) else None
            record = option.get_help_record(ctx)
            if record is not None:
                title = "Options" if component is None else _TITLES[component]
                records.setdefault(title, []).append(record)
        for title in ("Options", *_TITLES.values()):
            if records.get(title):
                with formatter.section(title):
                    formatter.write_dl(records[title])


def settings_command(*components: str) -> Callable[[Callable[..., Any]], SettingsCommand]:
    """A click command with the options of these components, besides its own, which go first: the
    seed of `complete` is that of its request."""

    def decorate(function: Callable[..., Any]) -> SettingsCommand:
        command = click.command(
            cls=SettingsCommand, context_settings={"token_normalize_func": _with_dashes}
        )(function)
        taken = {option.name for option in command.params}
        command.params += [
            SettingOption(key)
            for key in KEYS.values()
            if key.component in components and key.name not in taken
        ]
        return command

    return decorate


def serving_command(*components: str) -> Callable[[Callable[..., Any]], SettingsCommand]:
    """A click command with MODEL, --config and settings, as `novacron serve` takes them: those of
    `components`, or all.

    The function gets the Settings they make, then its own options.
    """

    def decorate(function: Callable[..., Any]) -> SettingsCommand:
        @wraps(function)
        def run(*, model_path: str | None, config_file: Path | None, **options: object) -> object:
            flags = {name: options.pop(name) for name in KEYS if name in options}
            settings = load_settings(flags, file=config_file, model=model_path)
            return function(settings, **options)

        model = click.argument("model_path", metavar="[MODEL]", required=False)
        config_file = click.option(
            "--config",
            "config_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="YAML file with settings; flags win over it.",
        )
        return settings_command(*(components or _TITLES))(model(config_file(run)))

    return decorate


def load_settings(
    flags: Mapping[str, object], *, file: Path | None = None, model: str | None = None
) -> Settings:
    """The settings of this run. `model` is the positional MODEL. Raises ConfigError."""
    given = {name: value for name, value in flags.items() if name in KEYS}
    if model is not None:
        if given.get("model") is not None:
            raise click.UsageError("The model is given twice: as MODEL and by --model.")
        given["model"] = model
    return load(file=file, env=os.environ, flags=given)


def _with_dashes(name: str) -> str:
    return name.replace("_", "-")


def _metavar(key: Key) -> str:
    kinds = [key.annotation, *get_args(key.annotation)]
    if get_origin(key.annotation) is Literal:
        return f"[{'|'.join(get_args(key.annotation))}]"
    if get_origin(key.annotation) is tuple and not key.is_list:
        return "YAML"
    if key.unit:
        return {"bytes": "SIZE", "s": "DURATION"}[key.unit]
    return "INTEGER" if int in kinds else "NUMBER" if float in kinds else "TEXT"


def _help(key: Key) -> str:
    default = text_of(key, key.default)
    shown = "" if default == "-" else f" [default: {default}]"
    return f"{key.meaning}{shown}"


def _split(ctx: click.Context, option: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    parts = tuple(part for value in values for part in value.split(","))
    if isinstance(option, SettingOption) and option.key.secret and values and not any(parts):
        # As from --api-key "$KEY" where KEY is not set: a server that is open to everyone.
        raise click.BadParameter("is empty; leave the option out if none is wanted", ctx, option)
    return parts
