"""Models in several GGUF files, as the gguf package splits them."""

from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import pytest

from novacron.errors import ModelLoadError
from novacron.models.gguf_checkpoint import GGUFCheckpoint
from novacron.models.gguf_model import GGUFModel
from novacron.testing.gguf_models import write_gguf
from novacron.testing.tiny_models import make_tiny_model


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of three files, m-0000N-of-00003.gguf, and the same in one, m.gguf."""
    base = tmp_path_factory.mktemp("models")
    folder = make_tiny_model("llama", base / "model", num_hidden_layers=1)
    files = base / "files"
    files.mkdir()
    write_gguf(folder, files / "m.gguf", tensors_per_file=4)
    write_gguf(folder, files / "m.gguf")
    return files


@pytest.fixture
def files(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "files"))


FIRST = "m-00001-of-00003.gguf"


def test_parts_are_one_model(files: Path) -> None:
    whole, parts = GGUFModel(files / "m.gguf"), GGUFModel(files / FIRST)
    assert len(parts.parts) == 3
    assert parts.tensors.keys() == whole.tensors.keys()
    checkpoint = GGUFCheckpoint(parts)
    assert [path.name for path in checkpoint.files] == [
        f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)
    ]
    for path in checkpoint.files:
        assert 0 < checkpoint.header_bytes(path) < path.stat().st_size
    found = {checkpoint.file_of(name) for name in checkpoint.names}
    assert found <= set(checkpoint.files)
    assert len(found) > 1


def test_another_part_than_the_first_is_refused(files: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"is part 2 of .* Give the first, .*-00001-of-00003"):
        GGUFModel(files / "m-00002-of-00003.gguf")


def test_a_missing_part_is_named(files: Path) -> None:
    (files / "m-00003-of-00003.gguf").unlink()
    with pytest.raises(ModelLoadError, match=r"m-00003-of-00003\.gguf is not beside it"):
        GGUFModel(files / FIRST)


def test_a_first_part_of_another_name_is_refused(files: Path) -> None:
    (files / FIRST).rename(files / "mine.gguf")
    with pytest.raises(ModelLoadError, match=r"must end in -00001-of-00003\.gguf"):
        GGUFModel(files / "mine.gguf")


def test_a_part_that_is_there_twice_is_refused(files: Path) -> None:
    shutil.copy(files / "m-00002-of-00003.gguf", files / "m-00003-of-00003.gguf")
    with pytest.raises(ModelLoadError, match="two parts of the model have a tensor"):
        GGUFModel(files / FIRST)


def test_parts_of_which_tensors_are_missing_are_refused(files: Path) -> None:
    writer = gguf.GGUFWriter(str(files / "m-00003-of-00003.gguf"), "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelLoadError, match=r"have \d+ tensors, not \d+"):
        GGUFModel(files / FIRST)
