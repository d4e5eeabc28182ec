from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novacron.errors import ConfigError
from novacron.quality.document_losses import DocumentLoss, DocumentLosses, LossJournal

IDENTITY = {"model": "m", "levels": "int8,int4"}


def run(*counts: int) -> DocumentLosses:
    loss = DocumentLoss(
        tuple(count / 10 for count in counts), tuple(-count / 10 for count in counts)
    )
    return DocumentLosses(counts, {"a": {"int8": loss, "int4": loss}, "b": {"int8": loss}})


def test_runs_are_joined_document_by_document() -> None:
    assert DocumentLosses.joined([run(3, 1), run(2), run(7)]) == run(3, 1, 2, 7)
    assert DocumentLosses.joined([run(3)]) == run(3)


def test_what_was_kept_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "measured.part"
    journal = LossJournal(path, IDENTITY)
    assert journal.runs == []
    journal.add(run(3, 1))
    journal.add(run(2))
    again = LossJournal(path, IDENTITY)
    assert again.runs == [run(3, 1), run(2)]
    again.add(run(9))
    assert LossJournal(path, IDENTITY).runs == [run(3, 1), run(2), run(9)]
    again.remove()
    assert not path.exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(left=st.floats(0, 1))
def test_a_file_that_was_cut_anywhere_goes_on_with_its_whole_lines(
    left: float, tmp_path: Path
) -> None:
    path = tmp_path / "measured.part"
    path.unlink(missing_ok=True)
    journal = LossJournal(path, IDENTITY)
    for count in (1, 2, 3):
        journal.add(run(count))
    data = path.read_bytes()
    kept = data[: int(left * len(data))]
    path.write_bytes(kept)
    cut = LossJournal(path, IDENTITY)
    assert cut.runs == [run(1), run(2), run(3)][: max(0, kept.count(b"\n") - 1)]
    cut.add(run(4))
    assert LossJournal(path, IDENTITY).runs == cut.runs


@pytest.mark.parametrize("text", ["no measurement", '{"model":"other"}\n'])
def test_the_beginning_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "measured.part"
    path.write_text(text)
    with pytest.raises(ConfigError, match="beginning of another measurement"):
        LossJournal(path, IDENTITY)
    assert path.read_text() == text


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    journal = LossJournal()
    journal.add(run(1))
    journal.remove()
    assert journal.runs == [run(1)]
