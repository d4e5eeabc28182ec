from __future__ import annotations

from pathlib import Path

import pytest

from novacron.cli.calibration_texts import calibration_texts
from novacron.config.model import ModelConfig
from novacron.demo import bundled_model_path
from novacron.demo.calibration import calibration_chats
from novacron.demo.tasks import TASKS, held_out_examples
from novacron.engine.tokenization import Tokenizer
from novacron.errors import ConfigError


def test_the_bundled_model_gets_chats_that_no_test_asks() -> None:
    chats = list(calibration_chats(3))
    assert chats == list(calibration_chats(3))
    asked = {chat[-2].content for chat in chats}
    for name in TASKS:
        assert not asked & {one.messages[-1].content for one in held_out_examples(name, 50, 1)}
    texts = calibration_texts(ModelConfig(), bundled_model_path(), None)
    text = Tokenizer.load(bundled_model_path()).decode(list(texts[0]))
    assert chats[0][-1].content in text


def test_a_file_is_cut_into_pieces(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("The capital of France is Paris. " * 400)
    texts = calibration_texts(ModelConfig(), bundled_model_path(), file)
    whole = Tokenizer.load(bundled_model_path()).encode(file.read_text())
    assert [token for text in texts for token in text] == whole
    assert {len(text) for text in texts[:-1]} == {512}


def test_a_model_of_ones_own_needs_a_text(tmp_path: Path) -> None:
    model = ModelConfig(model=str(bundled_model_path()))
    with pytest.raises(ConfigError, match="give a text file with --calibration"):
        calibration_texts(model, bundled_model_path(), None)
    (tmp_path / "no-text").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        calibration_texts(model, bundled_model_path(), tmp_path / "no-text")
