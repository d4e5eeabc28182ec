"""Pieces joined are the whole, wherever the tokens and the stop strings are cut."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from novacron.engine.detokenization import IncrementalDetokenizer, Piece
from novacron.engine.tokenization import Tokenizer
from novacron.testing.tiny_tokenizers import byte_level, sentencepiece_style


def _ours(tokenizer: tokenizers.Tokenizer) -> Tokenizer:
    return Tokenizer(
        json_text=tokenizer.to_str(),
        origin="tokenizer.json",
        named_tokens={"bos_token": "<s>", "eos_token": "</s>"},
        configured_eos_ids=(),
        chat_templates=None,
    )


REFERENCES = {"byte-level": byte_level(), "sentencepiece": sentencepiece_style()}
TOKENIZERS = {name: _ours(reference) for name, reference in REFERENCES.items()}
MAX_ID = max(reference.get_vocab_size() for reference in REFERENCES.values()) + 5

kinds = st.sampled_from(sorted(REFERENCES))
token_ids = st.lists(st.integers(0, MAX_ID), max_size=40)
_WORDS = (
    *("hello", " world", "  ", "\n", "caf\u00e9"),
    *("\u4f60\u597d", "\U0001f469\u200d\U0001f680"),  # each several tokens long
)
texts = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(_WORDS), max_size=12).map("".join))


def _cut(ids: list[int], sizes: list[int]) -> list[list[int]]:
    """Cut ids into pushes of the given sizes, in turn."""
    parts, start = [], 0
    for size in sizes * (len(ids) + 1):
        if start >= len(ids):
            break
        parts.append(ids[start : start + size])
        start += size
    return parts


def _pieces(
    detokenizer: IncrementalDetokenizer, parts: Sequence[Sequence[int]]
) -> tuple[list[str], str | None]:
    texts = []
    for part in parts:
        piece = detokenizer.push(part)
        texts.append(piece.text)
        if piece.stop is not None:
            return texts, piece.stop
    return [*texts, detokenizer.flush()], None


sizes = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@given(kind=kinds, text=texts, sizes=sizes, skip=st.booleans())
def test_text_comes_back_as_the_library_decodes_it(kind: str, text: str, sizes, skip) -> None:
    reference = REFERENCES[kind]
    ids = reference.encode(text).ids
    detokenizer = IncrementalDetokenizer(TOKENIZERS[kind], skip_special_tokens=skip)
    pieces, _ = _pieces(detokenizer, _cut(ids, sizes))
    assert "".join(pieces) == reference.decode(ids, skip_special_tokens=skip)
    assert TOKENIZERS[kind].decode(ids, skip_special_tokens=skip) == "".join(pieces)


@given(ids=token_ids, sizes=sizes, skip=st.booleans())
def test_any_byte_level_tokens_give_what_the_library_decodes(ids, sizes, skip) -> None:
    detokenizer = IncrementalDetokenizer(TOKENIZERS["byte-level"], skip_special_tokens=skip)
    pieces, _ = _pieces(detokenizer, _cut(ids, sizes))
    assert "".join(pieces) == REFERENCES["byte-level"].decode(ids, skip_special_tokens=skip)


@given(ids=token_ids, sizes=sizes, skip=st.booleans())
def test_any_sentencepiece_tokens_agree_where_bytes_form_characters(ids, sizes, skip) -> None:
    detokenizer = IncrementalDetokenizer(TOKENIZERS["sentencepiece"], skip_special_tokens=skip)
    pieces, _ = _pieces(detokenizer, _cut(ids, sizes))
    whole = REFERENCES["sentencepiece"].decode(ids, skip_special_tokens=skip)
    assert "".join(pieces) == TOKENIZERS["sentencepiece"].decode(ids, skip_special_tokens=skip)
    if "\ufffd" not in whole:
        assert "".join(pieces) == whole


@given(kind=kinds, text=texts, sizes=sizes)
def test_no_character_is_ever_split(kind: str, text: str, sizes) -> None:
    ids = REFERENCES[kind].encode(text.replace("\ufffd", "")).ids
    detokenizer = IncrementalDetokenizer(TOKENIZERS[kind])
    assert not any("\ufffd" in piece for piece in _pieces(detokenizer, _cut(ids, sizes))[0])


@given(kind=kinds, ids=token_ids, cut=st.integers(0, 40), skip=st.booleans())
def test_output_continues_the_prompt(kind: str, ids, cut: int, skip: bool) -> None:
    tokenizer = TOKENIZERS[kind]
    prompt, output = ids[:cut], ids[cut:]
    detokenizer = IncrementalDetokenizer(
        tokenizer, prompt_token_ids=prompt, skip_special_tokens=skip
    )
    text = "".join(_pieces(detokenizer, [[token] for token in output])[0])
    prompt_bytes = tokenizer.vocabulary.join(prompt, skip_special_tokens=skip)
    whole_characters = codecs.getincrementaldecoder("utf-8")("replace").decode(prompt_bytes)
    assert whole_characters + text == tokenizer.decode(ids, skip_special_tokens=skip)


@given(kind=kinds, ids=token_ids, data=st.data(), sizes=sizes, include=st.booleans())
def test_stops_are_found_as_if_read_letter_by_letter(kind, ids, data, sizes, include) -> None:
    tokenizer = TOKENIZERS[kind]
    whole = tokenizer.decode(ids)
    spans = st.tuples(st.integers(0, max(0, len(whole) - 1)), st.integers(1, 6))
    inside = spans.map(lambda span: whole[span[0] : span[0] + span[1]] or "x")
    stops = data.draw(st.lists(st.one_of(inside, st.text(min_size=1, max_size=4)), max_size=3))
    detokenizer = IncrementalDetokenizer(tokenizer, stop=tuple(stops), include_stop_str=include)
    pieces, stop = _pieces(detokenizer, _cut(ids, sizes))
    expected, expected_stop = _read_letter_by_letter(whole, stops, include)
    if expected_stop is not None and stop is None:
        # The last bytes of a text that breaks off inside a character become U+FFFD at the end only.
        assert whole.endswith("\ufffd")
        return
    assert ("".join(pieces), stop) == (expected, expected_stop)


def _read_letter_by_letter(text: str, stops: list[str], include: bool) -> tuple[str, str | None]:
    for end in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            longest = max(ended, key=len)
            return text[: end if include else end - len(longest)], longest
    return text, None


def _one_by_one(text: str, **options) -> list[Piece]:
    detokenizer = IncrementalDetokenizer(TOKENIZERS["byte-level"], **options)
    ids = [REFERENCES["byte-level"].token_to_id(character) for character in text]
    return [detokenizer.push([token_id]) for token_id in ids]


def test_only_what_may_begin_a_stop_is_held_back() -> None:
    texts = [piece.text for piece in _one_by_one("abENxENy", stop=("END",))]
    assert texts == ["a", "b", "", "", "ENx", "", "", "ENy"]


def test_stop_across_tokens() -> None:
    pieces = _one_by_one("abENDcd", stop=("END",))
    assert "".join(piece.text for piece in pieces) == "ab"
    assert [piece.stop for piece in pieces] == [None] * 4 + ["END"] * 3


def test_stop_within_one_push_cuts_the_rest() -> None:
    detokenizer = IncrementalDetokenizer(
        TOKENIZERS["byte-level"], stop=("world",), include_stop_str=True
    )
    ids = REFERENCES["byte-level"].encode("hello world, this").ids
    assert detokenizer.push(ids) == Piece("hello world", "world", 2)
    assert detokenizer.push(ids) == Piece("", "world", 1)
    assert detokenizer.flush() == ""


def test_stops_that_end_within_min_tokens_are_ignored() -> None:
    pieces = _one_by_one("abcabc", stop=("bc",), min_tokens=3)
    assert "".join(piece.text for piece in pieces) == "abca"
    assert [piece.stop for piece in pieces].index("bc") == 5


def test_a_stop_may_begin_within_min_tokens() -> None:
    pieces = _one_by_one("abc", stop=("bc",), min_tokens=2)
    assert "".join(piece.text for piece in pieces) == "a"
    assert pieces[-1].stop == "bc"


def test_min_tokens_holds_for_pushes_of_several_tokens() -> None:
    detokenizer = IncrementalDetokenizer(TOKENIZERS["byte-level"], stop=("b",), min_tokens=3)
    ids = [REFERENCES["byte-level"].token_to_id(character) for character in "abab"]
    assert detokenizer.push(ids) == Piece("aba", "b", 4)


def test_held_text_appears_at_the_end() -> None:
    detokenizer = IncrementalDetokenizer(TOKENIZERS["byte-level"], stop=("END",))
    ids = [REFERENCES["byte-level"].token_to_id(character) for character in "EN"]
    assert detokenizer.push(ids).text == ""
    assert detokenizer.flush() == "EN"


def test_a_broken_off_character_becomes_one_replacement_character() -> None:
    ids = REFERENCES["byte-level"].encode("\U0001f642").ids
    detokenizer = IncrementalDetokenizer(TOKENIZERS["byte-level"])
    assert [detokenizer.push([token_id]).text for token_id in ids[:-1]] == [""] * (len(ids) - 1)
    assert detokenizer.flush() == "\ufffd"


def test_a_character_begun_by_the_prompt_is_completed() -> None:
    ids = REFERENCES["byte-level"].encode("\U0001f642!").ids
    detokenizer = IncrementalDetokenizer(TOKENIZERS["byte-level"], prompt_token_ids=ids[:2])
    assert detokenizer.push(ids[2:]).text == "\U0001f642!"


def test_special_tokens_do_not_begin_a_text() -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    hello = REFERENCES["sentencepiece"].encode("hello").ids
    bos = REFERENCES["sentencepiece"].token_to_id("<s>")
    after_bos = IncrementalDetokenizer(tokenizer, prompt_token_ids=[bos])
    after_text = IncrementalDetokenizer(tokenizer, prompt_token_ids=[bos, *hello])
    assert after_bos.push(hello).text == "hello"
    assert after_text.push(hello).text == " hello"
