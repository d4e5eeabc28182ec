"""novacron encryption: keys of what is kept encrypted, whether a server runs or not."""

from __future__ import annotations

from collections.abc import Mapping

import click

from novacron.cli.lazy_group import Entry, LazyGroup

_COMMANDS: Mapping[str, Entry] = {
    "new-key": Entry("novacron.cli.encryption.new_key:new_key", "Make a master key."),
    "status": Entry("novacron.cli.encryption.rings:status", "Which keys are in use, and where."),
    "rotate": Entry("novacron.cli.encryption.rings:rotate", "Go over to a new master key."),
}


class _EncryptionGroup(LazyGroup):
    entries = _COMMANDS


@click.group(cls=_EncryptionGroup)
def encryption() -> None:
    """Make, look at and change the keys that KV blocks, answers and prompts are encrypted with."""
