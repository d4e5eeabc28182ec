"""novacron guard: try guardians on a text, without a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TextIO

import click

from novacron.cli.guardian_clients import poster
from novacron.cli.options import load_settings, settings_command
from novacron.config.guard import GuardConfig
from novacron.config.guardians import STAGES, GuardianConfig
from novacron.errors import NotReady
from novacron.guardians.build import Voices, build_guardian
from novacron.guardians.judge import Question
from novacron.guardians.masking import Masker
from novacron.guardians.panel import Decision, Panel
from novacron.guardians.records import Outcome, Stage, Subject
from novacron.guardians.verdict_cache import CacheLimits, VerdictCache

EXIT_REFUSED: Final = 1
_NEED_A_MODEL: Final = ("judge", "intent", "canary")
_BY_DEFAULT: Final = ({"kind": "pii"}, {"kind": "secrets"}, {"kind": "injection"})


@dataclass(frozen=True)
class Checked:
    """What guardians say of a text; the text as it would go on, None if it would not; and who was
    left out."""

    decision: Decision
    text: str | None
    skipped: tuple[str, ...]


@click.group()
def guard() -> None:
    """Try guardians on a text."""


@settings_command("guard")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file with settings; flags win over it.",
)
@click.option(
    "--stage", type=click.Choice(STAGES), help="Ask only those of this stage [default: all]."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def check(
    ctx: click.Context,
    /,
    file: TextIO,
    config_file: Path | None,
    stage: str | None,
    *,
    as_json: bool,
    **options: object,
) -> None:
    """Ask the guardians of the settings what they say of FILE (- for standard input).

    Where none are set: personal data, keys and prompt injections. Those that ask the served model
    are left out. Prints their verdicts, and the text as it would go on.

    Exit codes: 0 if the text may pass, masked or not; 1 if it is refused; 2 for wrong settings.
    """
    settings = load_settings(options, file=config_file)
    result = check_text(settings.guard, file.read(), stage)
    click.echo(_as_json(result) if as_json else _as_table(result))
    if result.text is None:
        ctx.exit(EXIT_REFUSED)


guard.add_command(check)


def check_text(config: GuardConfig, text: str, stage: str | None = None) -> Checked:
    """Raises ConfigError."""
    if not config.guardians:
        config = replace(config, guardians=_BY_DEFAULT)
    chosen = [one for one in config.guardian_list if stage is None or stage in one.stages]
    skipped = tuple(one.name for one in chosen if one.kind in _NEED_A_MODEL)
    asked = [one for one in chosen if one.name not in skipped]
    decision = asyncio.run(_decide(config, asked, text, stage))
    is_refused = any(
        verdict.outcome >= Outcome.ERROR
        for verdict, one in zip(decision.verdicts, asked, strict=False)
        if one.mode == "enforce"
    )
    masked = Masker().mask(text, decision.spans_to_mask)
    return Checked(decision, None if is_refused else masked, skipped)


async def _decide(
    config: GuardConfig, asked: Sequence[GuardianConfig], text: str, stage: str | None
) -> Decision:
    voices = Voices(ask=_no_model, embed=_no_vectors, post=poster(config))
    with ThreadPoolExecutor(1) as pool:
        panel = Panel(
            deadline_s=config.guardian_deadline, cache=VerdictCache(CacheLimits()), pool=pool
        )
        decisions = [
            await panel.decide(
                [build_guardian(one, voices)], Subject(Stage(stage or one.stages[0]), text)
            )
            for one in asked
        ]
    return Decision(tuple(finding for one in decisions for finding in one.findings))


async def _no_model(question: Question) -> str:
    raise NotReady("No model is served here.")


async def _no_vectors(texts: Sequence[str], tenant: str) -> Sequence[Sequence[float]]:
    raise NotReady("No model is served here.")


def _as_table(result: Checked) -> str:
    lines = [
        f"{verdict.guardian:16}{verdict.outcome.name.lower():8}{verdict.reason}".rstrip()
        for verdict in result.decision.verdicts
    ]
    lines += [f"{name:16}left out: it asks the served model" for name in result.skipped]
    return "\n".join((*lines, "", "(refused)" if result.text is None else result.text.rstrip()))


def _as_json(result: Checked) -> str:
    verdicts = [
        {
            "guardian": verdict.guardian,
            "outcome": verdict.outcome.name.lower(),
            "score": verdict.score,
            "reason": verdict.reason,
            "spans": [[span.start, span.end, span.kind] for span in verdict.spans],
        }
        for verdict in result.decision.verdicts
    ]
    told = {"verdicts": verdicts, "skipped": list(result.skipped), "text": result.text}
    return json.dumps(told, ensure_ascii=False)
