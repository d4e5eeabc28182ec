"""Which draft models an engine takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from novacron.config.engine import EngineConfig, SpeculativeConfig
from novacron.config.model import ModelConfig
from novacron.demo import bundled_model_path
from novacron.engine.draft_pair import find_draft_model
from novacron.errors import ConfigError
from novacron.testing.tiny_models import write_tiny_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tokenizer; weights are not looked at."""
    made = tmp_path / "model"
    write_tiny_tokenizer(made)
    return made


def config(draft: Path | str = "", tokenizer: str = "") -> EngineConfig:
    return EngineConfig(
        model=ModelConfig(tokenizer=tokenizer),
        speculative=SpeculativeConfig(speculative_method="draft", speculative_model=str(draft)),
    )


def test_none_unless_it_is_asked_for(folder: Path) -> None:
    assert find_draft_model(EngineConfig(), folder) is None


def test_one_with_the_same_tokenizer(folder: Path, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    shutil.copytree(folder, draft)
    assert find_draft_model(config(draft), folder) == draft


def test_the_bundled_model_if_none_is_named(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(bundled_model_path(), other)
    assert find_draft_model(config(), other) == bundled_model_path()
    with pytest.raises(ConfigError, match=r"vocabularies differ: .*sizes: 384 and"):
        find_draft_model(config(), folder)
    assert find_draft_model(config(tokenizer=str(other)), folder) == bundled_model_path()


def test_a_token_with_another_number(folder: Path, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    shutil.copytree(folder, draft)
    tokenizer = json.loads((draft / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (draft / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match=r"2 tokens .* such as 'a', 'b'"):
        find_draft_model(config(draft), folder)


def test_a_token_that_is_special_in_one_only(folder: Path, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    shutil.copytree(folder, draft)
    tokenizer = json.loads((draft / "tokenizer.json").read_text())
    tokenizer["added_tokens"][3]["special"] = False
    (draft / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match="token 3 is special in one of them only"):
        find_draft_model(config(draft), folder)


def test_the_model_itself(folder: Path) -> None:
    with pytest.raises(ConfigError, match="is the model itself"):
        find_draft_model(config(folder), folder)


def test_a_model_needs_the_method(folder: Path) -> None:
    config = EngineConfig(
        speculative=SpeculativeConfig(speculative_method="ngram", speculative_model="x")
    )
    with pytest.raises(ConfigError, match="speculative_model is 'x', but speculative_method is"):
        find_draft_model(config, folder)
