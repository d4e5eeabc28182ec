"""When hosts keep the layers that they had at the last start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from novacron.config.model import ModelConfig
from novacron.executor.hosts.kept_cut import CutFile, is_worth_keeping
from novacron.models.layer_costs import LayerCosts

COSTS = LayerCosts((1.0,) * 10, 2.0)
ROOM = (20.0, 20.0)


def keeps(
    former: tuple[int, ...],
    best: tuple[int, ...],
    speeds: tuple[float, ...] = (1.0, 1.0),
    room: tuple[float, ...] = ROOM,
) -> bool:
    return is_worth_keeping(former, best, COSTS, speeds=speeds, room_bytes=room)


def test_costs_of_stages_are_those_of_their_layers_and_of_both_ends() -> None:
    assert COSTS.held((4, 10)) == [6.0, 6.0]
    assert COSTS.held((1, 3, 10)) == [3.0, 2.0, 7.0]


@pytest.mark.parametrize(
    ("former", "is_kept"),
    [((4, 10), True), ((5, 10), True), ((3, 10), True), ((6, 10), False), ((1, 10), False)],
)
def test_a_cut_is_kept_that_costs_little_time(former: tuple[int, ...], is_kept: bool) -> None:
    """The best takes 6: up to 7.5 is little."""
    assert keeps(former, (4, 10)) == is_kept


def test_a_host_that_is_much_slower_now_gets_fewer_layers() -> None:
    assert keeps((4, 10), (5, 10), speeds=(1.0, 0.8))  # 7.5 where 7 would do
    assert not keeps((4, 10), (7, 10), speeds=(1.0, 0.33))


def test_a_cut_that_does_not_fit_any_more_is_not_kept() -> None:
    assert keeps((5, 10), (4, 10), room=(7.0, 20.0))
    assert not keeps((5, 10), (4, 10), room=(6.9, 20.0))


@pytest.mark.parametrize(
    "former", [(), (4,), (10,), (4, 9), (0, 10), (10, 10), (4, 6, 10), (-1, 10)]
)
def test_what_is_no_cut_of_this_model_is_not_kept(former: tuple[int, ...]) -> None:
    assert not keeps(former, (4, 10))


def test_a_cut_is_found_again_by_the_same_model_over_the_same_hosts(tmp_path: Path) -> None:
    model = ModelConfig(cache_dir=str(tmp_path))
    file = CutFile(model, Path("/m"), ["b"])
    assert file.read() == ()
    file.write([4, 10])
    assert CutFile(model, Path("/m"), ["b"]).read() == (4, 10)
    others = [
        CutFile(model, Path("/m"), ["b", "c"]),
        CutFile(model, Path("/n"), ["b"]),
        CutFile(replace(model, quantization="int8"), Path("/m"), ["b"]),
    ]
    assert [other.read() for other in others] == [(), (), ()]
    [path] = (tmp_path / "novacron" / "cuts").iterdir()
    path.write_text("[4, 1")
    assert file.read() == ()


def test_a_folder_that_cannot_be_written_costs_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "novacron").write_text("not a folder")
    CutFile(ModelConfig(cache_dir=str(tmp_path)), Path("/m"), ["b"]).write([4, 10])
    assert "cannot be kept for the next start" in caplog.text
