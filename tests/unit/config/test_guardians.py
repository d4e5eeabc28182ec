from __future__ import annotations

from pathlib import Path

import pytest

from novacron.config.explain import explain, render_json, render_table
from novacron.config.guard import GuardConfig
from novacron.config.guardians import KINDS
from novacron.config.load import load
from novacron.errors import ConfigError

FILE = """
guardians:
  - {kind: pii, stage: [input, stream], mode: enforce, action: mask}
  - {kind: http, name: mine, url: "https://user:pw@guard.example/x", token: abc, timeout: 200ms}
guardian_deadline: 3s
specialists:
  - {name: lawyer, system: You know the law., guardians: [pii]}
"""


def test_a_file_names_guardians_and_specialists(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(FILE)
    settings = load(file=file, env={}, flags={})
    pii, mine = settings.guard.guardian_list
    assert (pii.name, pii.stages, pii.action) == ("pii", ("input", "stream"), "mask")
    assert (mine.name, mine.timeout_s, mine.options["token"]) == ("mine", 0.2, "abc")
    assert settings.guard.guardian_deadline == 3.0
    assert settings.guard.specialist_list[0].guardians == ("pii",)


def test_explain_shows_them_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(FILE)
    rows = explain(load(file=file, env={}, flags={}))
    for shown in (render_table(rows), render_json(rows)):
        assert "pii" in shown
        assert "abc" not in shown.replace("abcd", "")
        assert "pw@" not in shown


def test_environment_and_flags_take_yaml() -> None:
    settings = load(file=None, env={"NOVACRON_GUARDIANS": "[{kind: pii}]"}, flags={})
    assert [one.kind for one in settings.guard.guardian_list] == ["pii"]
    settings = load(file=None, env={}, flags={"guardians": '{"kind": "injection"}'})
    assert [one.kind for one in settings.guard.guardian_list] == ["injection"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_defaults_that_are_allowed(kind: str) -> None:
    needed = {"words": ["x"], "questions": [{"question": "a", "answer": "b"}], "rule": "r",
              "url": "http://x"}  # fmt: skip
    given = {"kind": kind, **{name: needed[name] for name in KINDS[kind].needed}}
    [one] = GuardConfig(guardians=(given,)).guardian_list
    assert one.stages


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "no kind"),
        ({"kind": "pi"}, "there are pii"),
        ({"kind": "pii", "stages": "input"}, "unknown key 'stages'"),
        ({"kind": "pii", "stage": "before"}, "there are input"),
        ({"kind": "pii", "mode": "enforce", "stage": "post"}, "after the answer has gone out"),
        ({"kind": "judge", "rule": "x", "action": "mask"}, "cannot mask"),
        ({"kind": "judge"}, "needs 'rule'"),
        ({"kind": "pii", "share": 0}, "share"),
        ({"kind": "pii", "timeout": "soon"}, "timeout"),
        ({"kind": "words", "words": "x"}, "expected a list"),
        ({"kind": "canary", "questions": [1], "mode": "enforce", "stage": "output"}, "canary"),
        ({"kind": "pii", "name": "a b"}, "no name"),
    ],
)
def test_what_cannot_be_is_told(given: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=r"^guardians cannot be used") as raised:
        GuardConfig(guardians=(given,))
    assert told in str(raised.value)


def test_names_are_used_once() -> None:
    with pytest.raises(ConfigError, match="twice"):
        GuardConfig(guardians=({"kind": "pii"}, {"kind": "pii"}))


def test_specialists_name_guardians_that_there_are() -> None:
    with pytest.raises(ConfigError, match="unknown guardian 'pii'"):
        GuardConfig(specialists=({"name": "a", "guardians": ["pii"]},))


def test_the_origin_is_told() -> None:
    with pytest.raises(ConfigError, match="NOVACRON_GUARDIANS"):
        load(file=None, env={"NOVACRON_GUARDIANS": "[{kind: nothing}]"}, flags={})
