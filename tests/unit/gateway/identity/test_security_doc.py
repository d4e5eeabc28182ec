"""docs/security.md has the roles and permissions that there are."""

from __future__ import annotations

import re
from pathlib import Path

from novacron.gateway.identity.permissions import PERMISSIONS, ROLES

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "security.md").read_text()


def test_the_permissions_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| `(llm:\w+:\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert dict(rows) == PERMISSIONS


def test_the_roles_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    told = {name: tuple(re.findall(r"`(llm:[\w:*]+)`", text)) for name, text in rows}
    assert told == ROLES
