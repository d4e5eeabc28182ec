from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers
from tokenizers import Tokenizer as Reference
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from novacron.engine.gguf_tokenizer import read_gguf_tokenizer
from novacron.engine.tokenization import Tokenizer
from novacron.errors import ModelLoadError
from novacron.testing.gguf_models import Change, write_gguf
from novacron.testing.tiny_models import make_tiny_model

TURNS = [{"role": "user", "content": "Paris? <|im_end|>"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"), num_hidden_layers=1)


@pytest.fixture(scope="module")
def both(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Tokenizer]:
    file = write_gguf(folder, tmp_path_factory.mktemp("gguf") / "m.gguf")
    return Tokenizer.load(file), Tokenizer.load(folder)


@given(text=st.text() | st.text("ab 0'l<|im_end|>"))
def test_the_same_tokens_as_the_folder(both: tuple[Tokenizer, Tokenizer], text: str) -> None:
    found, expected = both
    for parse_special in (True, False):
        ids = expected.encode(text, parse_special=parse_special)
        assert found.encode(text, parse_special=parse_special) == ids
        assert found.decode(ids) == expected.decode(ids)


def test_the_same_chats_and_named_tokens(both: tuple[Tokenizer, Tokenizer]) -> None:
    found, expected = both
    assert found.apply_chat_template(TURNS) == expected.apply_chat_template(TURNS)
    assert found.eos_token_ids == expected.eos_token_ids
    assert found.bos_token_id == expected.bos_token_id
    assert found.special_token_ids == expected.special_token_ids
    assert found.vocab_size == expected.vocab_size


def test_the_files_beside_it_count_more(folder: Path, tmp_path: Path) -> None:
    file = write_gguf(folder, tmp_path / "m.gguf", also=lambda w: w.add_add_bos_token(True))
    assert Tokenizer.load(file).encode("a")[0] == 0
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path)
    assert Tokenizer.load(file).encode("a") == Tokenizer.load(folder).encode("a")


def test_beginning_and_end_of_a_text(folder: Path, tmp_path: Path) -> None:
    def also(writer: gguf.GGUFWriter) -> None:
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(True)

    found = Tokenizer.load(write_gguf(folder, tmp_path / "m.gguf", also=also))
    plain = found.encode("ab", add_special_tokens=False)
    assert found.encode("ab") == [0, *plain, 1]


def with_words(folder: Path, path: Path, name: str) -> Reference:
    file = write_gguf(folder, path, also=lambda writer: writer.add_tokenizer_pre(name))
    return Reference.from_str(read_gguf_tokenizer(file).json_text)


def by_pattern(pattern: str) -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])


PUBLISHED = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama-bpe": by_pattern(TikTokenConverter("").pattern),
    "qwen2": by_pattern(PRETOKENIZE_REGEX),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}


@pytest.fixture(scope="module", params=PUBLISHED)
def cut(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pre_tokenizers.PreTokenizer, pre_tokenizers.PreTokenizer]:
    """How text is cut into words by what a file says, and as it should be."""
    found = with_words(folder, tmp_path_factory.mktemp("words") / "m.gguf", request.param)
    return found.pre_tokenizer, PUBLISHED[request.param]


@given(text=st.text() | st.text("aB1 \r\n.'sT\u00e9"))
def test_text_is_cut_into_words_as_published(
    cut: tuple[pre_tokenizers.PreTokenizer, pre_tokenizers.PreTokenizer], text: str
) -> None:
    found, published = cut
    assert found.pre_tokenize_str(text) == published.pre_tokenize_str(text)


def test_what_goes_with_the_words_of_a_family(folder: Path, tmp_path: Path) -> None:
    """Llama 3 takes a word that is a token as it is, and begins texts; Qwen composes accents."""
    llama, qwen, gpt = (
        with_words(folder, tmp_path / f"{name}.gguf", name) for name in ("llama3", "qwen2", "gpt-2")
    )
    assert (llama.model.ignore_merges, qwen.model.ignore_merges) == (True, False)
    composed, decomposed = "\u00e9", "e\u0301"
    assert qwen.encode(decomposed).ids == qwen.encode(composed).ids
    assert gpt.encode(decomposed).ids != gpt.encode(composed).ids


def tokens(*names: str) -> Change:
    return lambda writer: writer.add_token_list(list(names))


REFUSED: dict[str, tuple[Change, str]] = {
    "another kind": (
        lambda writer: writer.add_tokenizer_model("bert"),
        "the kind 'bert', which is not supported; supported: gpt2, llama. Name .* --tokenizer",
    ),
    "pieces without scores": (
        lambda writer: writer.add_tokenizer_model("llama"),
        "has 384 tokens, but scores for 0. Name .* with --tokenizer",
    ),
    "unknown words": (
        lambda writer: writer.add_tokenizer_pre("tekken"),
        "the pre-tokenizer 'tekken', which is not supported; supported: gpt-2, .*--tokenizer",
    ),
    "a token twice": (tokens("a", "b", "a"), "holds 2 different ones"),
    "merges that are none": (lambda writer: writer.add_token_merges(["a b c"]), "no pair"),
    "merges of other tokens": (lambda writer: writer.add_token_merges(["QQ ZZ"]), "not a valid"),
    "types of other tokens": (lambda writer: writer.add_token_types([1, 3]), "types for 2"),
    "a name beyond the tokens": (
        lambda writer: writer.add_bos_token_id(10**6),
        "'tokenizer.ggml.bos_token_id' is 1000000, but there are 384 tokens",
    ),
    "a template that is none": (
        lambda writer: writer.add_chat_template("{% if %}"),
        "template",
    ),
}


@pytest.mark.parametrize(("also", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals(also: Change, reason: str, folder: Path, tmp_path: Path) -> None:
    file = write_gguf(folder, tmp_path / "m.gguf", also=also)
    with pytest.raises(ModelLoadError, match=reason) as caught:
        Tokenizer.load(file)
    assert str(file) in str(caught.value)


def test_templates_by_name(folder: Path, tmp_path: Path) -> None:
    def also(writer: gguf.GGUFWriter) -> None:
        writer.add_chat_template(
            [{"name": "default", "template": "usual"}, {"name": "tool_use", "template": "tools"}]
        )

    found = Tokenizer.load(write_gguf(folder, tmp_path / "m.gguf", also=also))
    assert found.chat_template_source(has_tools=False) == "usual"
    assert found.chat_template_source(has_tools=True) == "tools"
    given = tmp_path / "mine.jinja"
    given.write_text("mine")
    assert Tokenizer.load(tmp_path / "m.gguf", given).render_chat(TURNS) == "mine"
