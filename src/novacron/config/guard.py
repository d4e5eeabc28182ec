"""Settings of guardians and specialists.

guardians:
  - {kind: pii, stage: [input, stream], action: mask}
  - {kind: judge, name: manners, rule: "No insults.", mode: observe, share: 0.1}
specialists:
  - {name: lawyer, system: "You answer questions of law.", guardians: [pii], fallback: [helper]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from novacron.config.guardians import GuardianConfig, parse_guardian
from novacron.config.listings import need
from novacron.config.setting import require, setting
from novacron.config.specialists import SpecialistConfig, parse_specialist


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """Who judges prompts and answers, and which names answer in which way."""

    guardians: tuple[Mapping[str, object], ...] = setting(
        (), "who judges prompts and answers, as a list of guardians; see docs/guardians.md"
    )
    guardian_deadline: float = setting(
        2.0, "guardians that have not judged a text within so long have not passed it", unit="s"
    )
    guardian_cache_entries: int = setting(
        4096, "verdicts that are kept for texts that come again; 0: none"
    )
    specialists: tuple[Mapping[str, object], ...] = setting(
        (),
        "further model names, each with a system prompt, sampling and guardians of its own; see "
        "docs/guardians.md",
    )

    def __post_init__(self) -> None:
        require(
            self.guardian_deadline > 0, "guardian_deadline", self.guardian_deadline,
            "give a positive number of seconds",
        )  # fmt: skip
        require(
            self.guardian_cache_entries >= 0, "guardian_cache_entries",
            self.guardian_cache_entries, "give 0 or more",
        )  # fmt: skip
        known = {one.name for one in self.guardian_list}
        names = [one.name for one in self.specialist_list]
        for one in self.specialist_list:
            for name in one.guardians or ():
                need(name in known, "specialists", f"{one.name} has an unknown guardian '{name}'")
            need(one.name not in one.fallback, "specialists", f"{one.name} falls back on itself")
        need(len(names) == len(set(names)), "specialists", "two have the same name")

    @property
    def guardian_list(self) -> tuple[GuardianConfig, ...]:
        """Raises ConfigError."""
        parsed = tuple(map(parse_guardian, self.guardians))
        names = [one.name for one in parsed]
        twice = {name for name in names if names.count(name) > 1}
        need(not twice, "guardians", f"'{min(twice, default='')}' stands there twice; give names")
        return parsed

    @property
    def specialist_list(self) -> tuple[SpecialistConfig, ...]:
        """Raises ConfigError."""
        return tuple(map(parse_specialist, self.specialists))
