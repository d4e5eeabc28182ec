import json
import random
import re
import threading
from functools import cache

import jsonschema_rs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from novacron.engine.structured_output import (
    MAX_CACHED_GRAMMARS,
    GrammarCompiler,
    GrammarState,
)
from novacron.errors import InvalidRequest
from novacron.gateway.tool_calls import (
    ToolCallForm,
    ToolChoice,
    constraint_for,
    parse_tool_calls,
)
from novacron.records.request import StructuredOutput

END, SECOND_END = 1, 2
NUM_UNUSED = 21  # rows of the model's embedding that no token uses


@cache
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = ['{"name": "value", "items": [1, 2, 3], "ok": true}', "the quick brown fox été 日本"]
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<s>", "</s>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus * 20, trainer)
    return tokenizer


def _vocab_size() -> int:
    return _tokenizer().get_vocab_size() + NUM_UNUSED


@cache
def _compiler() -> GrammarCompiler:
    return GrammarCompiler(_tokenizer().to_str(), _vocab_size(), (END, SECOND_END))


def _allowed(mask: bytes) -> list[int]:
    assert len(mask) == (_vocab_size() + 31) // 32 * 4
    return [i for i in range(len(mask) * 8) if mask[i >> 3] >> (i & 7) & 1]


def _encode(text: str) -> list[int]:
    """Names of special tokens are text like any other."""
    tokenizer = _tokenizer()
    tokenizer.encode_special_tokens = True
    return tokenizer.encode(text).ids


def _start(kind: str, spec: object = "") -> GrammarState:
    text = spec if isinstance(spec, str) else json.dumps(spec)
    return _compiler().compile(StructuredOutput(kind, text))  # type: ignore[arg-type]


def _accepts(state: GrammarState, text: str) -> bool:
    """Whether the whole text, and an end after it, is allowed token by token."""
    for token_id in _encode(text):
        if token_id not in _allowed(state.mask()):
            return False
        state.accept([token_id])
    return END in _allowed(state.mask())


def _walk(state: GrammarState, seed: int, patience: int = 60) -> tuple[str, list[str]]:
    """A random text of the grammar, and all its beginnings after which it could have ended."""
    choose = random.Random(seed)
    closing = [_encode(text)[0] for text in ('"', "}", "]")]
    token_ids: list[int] = []
    complete: list[str] = []
    for step in range(1000):
        allowed = _allowed(state.mask())
        if END in allowed:
            complete.append(_tokenizer().decode(token_ids))
            if state.is_stopped or step >= patience or choose.random() < 0.3:
                state.accept([END])
                assert state.is_stopped
                return complete[-1], complete
        text_ids = [token_id for token_id in allowed if token_id not in (END, SECOND_END)]
        hurried = [token_id for token_id in closing if token_id in text_ids]
        token_id = choose.choice(hurried if hurried and step >= patience else text_ids)
        state.accept([token_id])
        token_ids.append(token_id)
    pytest.fail("the walk did not come to an end")


# --- what random walks over the masks give ----------------------------------------------------

SCHEMAS: dict[str, dict[str, object]] = {
    "object": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "ok": {"type": "boolean"},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    "nested arrays": {
        "type": "array",
        "items": {
            "type": "array",
            "items": {
                "type": "array",
                "items": {"type": "number", "minimum": -9, "maximum": 9.5},
                "maxItems": 2,
            },
            "maxItems": 2,
        },
        "minItems": 1,
        "maxItems": 3,
    },
    "unicode": {
        "type": "object",
        "properties": {"größe": {"enum": ["klein", "groß", "日本語", "🙂\n\"'\\"]}},
        "required": ["größe"],
        "additionalProperties": False,
    },
    "reference": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["value", "next"],
                "additionalProperties": False,
            }
        },
    },
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    "big enum": {"enum": [f"value number {i}" for i in range(2000)]},
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_json_schema(schema: dict[str, object], seed: int) -> None:
    text, complete = _walk(_start("json_schema", schema), seed)
    validator = jsonschema_rs.validator_for(schema)
    for beginning in complete:
        validator.validate(json.loads(beginning))
    assert text == complete[-1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_json_object(seed: int) -> None:
    text, _ = _walk(_start("json_object"), seed)
    assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    "regex", ["a*", "(yes|no)( sir)?", "[0-9]{3}-[a-f]{4}", "[äöü日本]{2,5}", r"[^a-z]{1,4}z"]
)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_regex(regex: str, seed: int) -> None:
    _, complete = _walk(_start("regex", regex), seed, patience=12)
    assert all(re.fullmatch(regex, text) for text in complete)


@settings(max_examples=20, deadline=None)
@given(
    choices=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 2**32),
)
def test_choice(choices: list[str], seed: int) -> None:
    _, complete = _walk(_start("choice", choices), seed)
    assert set(complete) <= set(choices)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_lark_grammar(seed: int) -> None:
    grammar = 'start: sum\nsum: NUMBER ("+" NUMBER)*\nNUMBER: /[1-9][0-9]{0,2}/\n'
    _, complete = _walk(_start("grammar", grammar), seed, patience=20)
    assert all(re.fullmatch(r"[1-9]\d{0,2}(\+[1-9]\d{0,2})*", text) for text in complete)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=3),
        st.none() | st.booleans() | st.integers(),
        max_size=3,
    )
)
@example({"<s>": None})
@settings(max_examples=25, deadline=None)
def test_json_object_admits_what_json_dumps_writes(value: dict[str, object]) -> None:
    assert _accepts(_start("json_object"), json.dumps(value, ensure_ascii=False))
    assert _accepts(_start("json_object"), json.dumps(value, indent=4, ensure_ascii=False))


# --- states -----------------------------------------------------------------------------------


def test_an_end_is_allowed_only_where_the_text_is_complete() -> None:
    state = _start("regex", "ab+")
    assert {END, SECOND_END}.isdisjoint(_allowed(state.mask()))
    state.accept(_encode("a"))
    assert {END, SECOND_END}.isdisjoint(_allowed(state.mask()))
    state.accept(_encode("b"))
    assert {END, SECOND_END} <= set(_allowed(state.mask()))
    assert not state.is_stopped


def test_a_text_that_cannot_go_on_allows_ends_only() -> None:
    state = _start("choice", ["ab"])
    state.accept(_encode("ab"))
    assert state.is_stopped
    assert _allowed(state.mask()) == [END, SECOND_END]
    state.accept([END])
    assert state.is_stopped
    assert state.error is None


def test_special_and_unused_tokens_are_never_text() -> None:
    allowed = _allowed(_start("regex", r"(.|\n)*").mask())
    assert 0 not in allowed
    assert max(allowed) < _tokenizer().get_vocab_size()


@pytest.mark.parametrize("num_unused", range(32))
def test_a_mask_has_one_bit_per_token_in_whole_words(num_unused: int) -> None:
    vocab_size = _tokenizer().get_vocab_size() + num_unused
    compiler = GrammarCompiler(_tokenizer().to_str(), vocab_size, (END,))
    state = compiler.compile(StructuredOutput("regex", "a*"))
    assert len(state.mask()) == (vocab_size + 31) // 32 * 4


@pytest.mark.parametrize("spec", ["a*b", "ab", "a(b|c)"])
@pytest.mark.parametrize("begin", ["", "a", "ab"])
def test_masks_of_drafts_are_those_that_would_come(spec: str, begin: str) -> None:
    state = _start("regex", spec)
    state.accept([token for letter in begin for token in _encode(letter)])
    drafts = [*_encode("a"), *_encode("b"), END, *_encode("a")]
    for first in range(len(drafts)):
        before = state.mask()
        masks = state.masks(drafts[first:])
        step_by_step = _start("regex", spec)
        step_by_step.accept([token for letter in begin for token in _encode(letter)])
        for mask, draft in zip(masks, drafts[first:], strict=False):
            assert step_by_step.mask() == mask
            step_by_step.accept([draft])
        num_allowed = len(masks) - 1
        assert num_allowed == len(drafts[first:]) or drafts[first + num_allowed] not in _allowed(
            masks[-1]
        )
        assert state.masks(()) == (before,), "looking ahead changes nothing"
        assert state.error is None


def test_states_of_one_grammar_are_independent() -> None:
    first, second = _start("regex", "ab"), _start("regex", "ab")
    before = second.mask()
    first.accept(_encode("a"))
    assert second.mask() == before != first.mask()


def test_a_token_that_was_not_allowed_forbids_all_others() -> None:
    state = _start("regex", "ab")
    state.accept(_encode("b"))
    assert state.error is not None
    assert not state.is_stopped
    assert _allowed(state.mask()) == []


# --- specs that are refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("json_schema", "{", "not JSON"),
        ("json_schema", "[]", "must be a JSON object"),
        ("json_schema", '{"minimum": NaN}', "NaN"),
        ("json_schema", '{"type": "float"}', "Invalid type: float"),
        ("json_schema", '{"minimum": 1000000000000000000000000000000}', "cannot be used"),
        ("json_schema", '{"not": {"type": "string"}}', "not"),
        ("json_schema", '{"$ref": "http://example.com/schema"}', "example.com"),
        ("json_schema", '{"$ref": "#"}', "cannot be used"),
        ("json_schema", '{"enum": []}', "cannot be used"),
        ("json_schema", '{"items":' * 10_000 + "{}" + "}" * 10_000, "too large"),
        ("json_schema", '{"items":' * 5000 + "{}" + "}" * 5000, "not JSON|recursion"),
        ("json_schema", '{"enum":["\ud800"]}', "surrogate"),
        ("regex", "(a", "unclosed group"),
        ("regex", "(?=a)b", "look-around"),
        ("regex", r"[^\s\S]", "cannot be used"),
        ("regex", "(" * 4000 + "a" + ")" * 4000, "nest"),
        ("choice", "yes", "not JSON"),
        ("choice", "[]", "at least one"),
        ("choice", '{"a": 1}', "JSON list"),
        ("choice", '["a", ""]', "not empty"),
        ("choice", '["a", 1]', "strings"),
        ("grammar", "start: missing", "missing"),
        ("grammar", "start:" + "(" * 3000 + '"a"' + ")" * 3000, "nested"),
        ("grammar", "", "cannot be used"),
        ("regex", "[ab]?c?" * 5000, "too large"),
        ("grammar", "start: A\nA: /" + "a" * 70_000 + "/", "too large"),
    ],
)
def test_bad_specs_are_refused_with_a_reason(kind: str, spec: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        _start(kind, spec)
    assert caught.value.param == "structured_output"
    assert len(str(caught.value)) < 1000


def test_deep_chains_of_rules_do_not_exhaust_the_stack() -> None:
    """4,000 of them took the process down on a usual stack."""
    rules = "".join(f'R{i}: ("a" R{i + 1})* "q"\n' for i in range(1990))
    state = _start("grammar", f'start: R0\n{rules}R1990: "b"\n')
    state.accept(_encode("a"))
    assert state.error is None
    with pytest.raises(InvalidRequest, match="number of lines"):
        _start("grammar", "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(4000)))


def test_deep_chains_of_references_do_not_exhaust_the_stack() -> None:
    """As deep as fits into the longest schema."""
    chain = {f"{i:x}": {"$ref": f"#/$defs/{i + 1:x}"} for i in range(2080)}
    schema = {"$ref": "#/$defs/0", "$defs": chain | {f"{2080:x}": {"type": "null"}}}
    state = _start("json_schema", json.dumps(schema, separators=(",", ":")))
    assert _accepts(state, "null")


def test_a_grammar_that_is_too_costly_for_one_token_fails_its_request_only() -> None:
    """llguidance gives up after a fixed amount of work, and then no token is allowed."""
    state = _start("regex", "[ab]?c?" * 1100)
    for token_id in _encode("a") + _encode("b"):
        state.mask()
        state.accept([token_id])
    assert _allowed(state.mask()) == []
    assert state.error is not None


def test_a_tokenizer_that_is_not_one() -> None:
    compiler = GrammarCompiler('{"a": 1}', 10, (1,))
    with pytest.raises(InvalidRequest, match="tokenizer"):
        compiler.compile(StructuredOutput("json_object"))


def test_a_model_without_an_end() -> None:
    compiler = GrammarCompiler(_tokenizer().to_str(), _vocab_size(), ())
    with pytest.raises(InvalidRequest, match="end-of-sequence"):
        compiler.compile(StructuredOutput("json_object"))


# --- the cache --------------------------------------------------------------------------------


def test_the_cache_is_bounded() -> None:
    compiler = GrammarCompiler(_tokenizer().to_str(), _vocab_size(), (END,))
    for i in range(MAX_CACHED_GRAMMARS + 10):
        compiler.compile(StructuredOutput("choice", json.dumps([f"c{i}"])))
    assert len(compiler._cache) == MAX_CACHED_GRAMMARS


def test_threads_can_share_a_compiler() -> None:
    texts: list[str] = []

    def work(seed: int) -> None:
        texts.append(_walk(_start("choice", [f"thread {seed % 3}"]), seed)[0])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts) == [f"thread {i}" for i in (0, 0, 1, 1, 2, 2)]


# --- grammars that the gateway makes for tools ------------------------------------------------

TOOLS: list[dict[str, object]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer"}},
                "required": ["city"],
                "additionalProperties": False,
                "$defs": {"city": {"type": "string", "maxLength": 5}},
            },
        },
    },
    {"type": "function", "function": {"name": "now"}},
]


@pytest.mark.parametrize("form", ["hermes", "llama3"])
@pytest.mark.parametrize("choice", ["required", {"function": {"name": "now"}}])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_forced_tool_calls_parse(form: ToolCallForm, choice: ToolChoice, seed: int) -> None:
    spec = constraint_for(TOOLS, choice, form)
    assert spec is not None
    text, _ = _walk(_compiler().compile(spec), seed, patience=30)
    content, calls = parse_tool_calls(text, form)
    assert content == ""
    assert calls
    for call in calls:
        arguments = json.loads(call.arguments)
        if call.name == "now":
            assert arguments == {}
        else:
            assert len(arguments["city"]) <= 5
    if choice != "required":
        assert [call.name for call in calls] == ["now"]
