from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import huggingface_hub
import pytest

from novacron.errors import ModelLoadError
from novacron.models.hub import download


def raising(error: Exception) -> object:
    def snapshot_download(*arguments: object, **options: object) -> NoReturn:
        raise error

    return snapshot_download


@pytest.mark.parametrize("name", ["no-such-folder", "/no/such/folder", "a/b/c", "a/b c"])
def test_what_is_no_hub_name_is_not_looked_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(AssertionError()))
    with pytest.raises(ModelLoadError, match="no folder, and no name on the Hugging Face hub"):
        download(name)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError("offline"), "the hub cannot be reached"),
        (OSError("401 Client Error"), "cannot be fetched from the hub: 401 Client Error"),
    ],
)
def test_failures_say_what_to_do(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(error))
    with pytest.raises(ModelLoadError, match=message):
        download("some/model")


def test_gives_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        assert name == "some/model"
        assert "*.safetensors" in allow_patterns
        assert not any(pattern.endswith(("bin", "pt")) for pattern in allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert download("some/model") == tmp_path
