import itertools
import json
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from novacron.errors import InvalidRequest
from novacron.gateway.tool_calls import (
    ContentDelta,
    Delta,
    ParsedCall,
    ToolCallDelta,
    ToolCallForm,
    constraint_for,
    detect_form,
    make_parser,
    parse_tool_calls,
)

FORMS: tuple[ToolCallForm, ...] = ("hermes", "llama3")

# A message as its reader sees it: content and calls in order; neighbouring content joined.
Parts = list[str | tuple[str, str]]


def _deltas(pieces: Sequence[str], form: ToolCallForm) -> list[Delta]:
    ids = itertools.count()
    parser = make_parser(form, lambda: f"id{next(ids)}")
    deltas = [delta for piece in pieces for delta in parser.push(piece)]
    return deltas + parser.finish()


def _join(deltas: Sequence[Delta]) -> Parts:
    """Checks the protocol of deltas on the way."""
    parts: Parts = []
    num_calls = 0
    for delta in deltas:
        if isinstance(delta, ContentDelta):
            assert delta.text
            if parts and isinstance(parts[-1], str):
                parts[-1] += delta.text
            else:
                parts.append(delta.text)
        elif delta.name is not None:
            assert (delta.index, delta.id, delta.arguments) == (num_calls, f"id{num_calls}", "")
            num_calls += 1
            parts.append((delta.name, ""))
        else:
            assert delta.index == num_calls - 1
            assert delta.id is None
            assert delta.arguments
            name, arguments = parts[-1]
            parts[-1] = (name, arguments + delta.arguments)
    return parts


def _parts(text: str, form: ToolCallForm) -> Parts:
    return _join(_deltas([text], form))


# --- how the text was cut does not matter ------------------------------------------------------

SHARDS = [
    "<tool_call>", "</tool_call>", "<|python_tag|>", '{"name": "f"', '"name"', '"arguments"',
    '"parameters"', "{", "}", ":", ",", ";", '"', "\\", '\\"', " ", "\n", "text", "<", "[", "]",
    "null", "<tool", "_call>", '{"a": "}<tool_call>"}', "é", '{"name": "f", "arguments": {"a": 1}}',
    '{"name": "g", "parameters": {}}',
]  # fmt: skip
texts = st.lists(st.sampled_from(SHARDS), max_size=14).map("".join)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=150, deadline=None)
@given(text=texts, data=st.data())
def test_any_cut_gives_the_same(form: ToolCallForm, text: str, data: st.DataObject) -> None:
    whole = _parts(text, form)
    assert _join(_deltas(list(text), form)) == whole
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    bounds = [0, *cuts, len(text)]
    assert _join(_deltas([text[i:j] for i, j in itertools.pairwise(bounds)], form)) == whole


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=150, deadline=None)
@given(text=texts)
@example(text="<tool_call>")
@example(text="  \n")
def test_a_message_without_calls_is_unchanged(form: ToolCallForm, text: str) -> None:
    parts = _parts(text, form)
    if all(isinstance(part, str) for part in parts):
        assert "".join(str(part) for part in parts) == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
arguments = st.dictionaries(st.text(max_size=4), json_values, max_size=3)
plain_texts = st.text("ab .<>&日", max_size=8).map(str.strip)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=100, deadline=None)
@given(content=plain_texts, values=st.lists(arguments, min_size=1, max_size=3), data=st.data())
def test_calls_come_out_as_they_went_in(
    form: ToolCallForm, content: str, values: list[dict[str, object]], data: st.DataObject
) -> None:
    indent = data.draw(st.sampled_from([None, 2]))
    dumped = [json.dumps(value, ensure_ascii=False, indent=indent) for value in values]
    key = "arguments" if form == "hermes" else "parameters"
    objects = [f'{{"name": "tool_{i}", "{key}": {text}}}' for i, text in enumerate(dumped)]
    if form == "hermes":
        text = content + "\n" + "\n".join(f"<tool_call>\n{o}\n</tool_call>" for o in objects)
    else:
        text = content + "<|python_tag|>" + "; ".join(objects)
    calls: Parts = [(f"tool_{i}", text) for i, text in enumerate(dumped)]
    assert _join(_deltas(list(text), form)) == ([content] if content else []) + calls


# --- what streams, and when --------------------------------------------------------------------


def test_name_first_then_arguments_as_they_come() -> None:
    parser = make_parser("hermes", lambda: "id0")
    steps = ["Sure.", ' <tool_call>{"name": "add",', ' "arguments": {"a"', ": 1, ", '"b": 2}', "}"]
    assert [parser.push(step) for step in steps] == [
        [ContentDelta("Sure.")],
        [],
        [ToolCallDelta(0, "id0", "add"), ToolCallDelta(0, arguments='{"a"')],
        [ToolCallDelta(0, arguments=": 1, ")],
        [ToolCallDelta(0, arguments='"b": 2}')],
        [],
    ]
    assert parser.push("</tool_call>") == parser.finish() == []


def test_only_possible_markup_is_held_back() -> None:
    parser = make_parser("hermes")
    assert parser.push("a <tool") == [ContentDelta("a")]
    assert parser.push("box> b") == [ContentDelta(" <toolbox> b")]
    assert parser.push(" <tool_cal") == []
    assert parser.finish() == [ContentDelta(" <tool_cal")]


def test_ids_differ_and_look_like_those_of_openai() -> None:
    _, calls = parse_tool_calls(
        '{"name":"f","parameters":{}};{"name":"f","parameters":{}}', "llama3"
    )
    assert len({call.id for call in calls}) == 2
    assert all(call.id.startswith("call_") and len(call.id) == 29 for call in calls)


# --- forms as models write them ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # arguments first, as Hermes 2 Pro was trained
        ('<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', [("f", '{"a": 1}')]),
        ('<tool_call>{"name": "f"}</tool_call>', [("f", "{}")]),
        ('<tool_call>{"name": "f", "arguments": null}</tool_call>', [("f", "{}")]),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', [("f", '{"a": 1}')]),
        (
            '<tool_call>{"type": "function", "name": "f", "arguments": {}}</tool_call>',
            [("f", "{}")],
        ),
        # one brace too many is common
        ('<tool_call>{"name": "f", "arguments": {}}}\n</tool_call>', [("f", "{}")]),
        (
            '<tool_call>{"name": "f", "arguments": {}}\n</tool_call>\n after',
            [("f", "{}"), "\n after"],
        ),
        # no closing tag
        ('<tool_call>{"name": "f", "arguments": {}}', [("f", "{}")]),
        (
            '<tool_call>{"name": "f", "arguments": {}}<tool_call>{"name": "g"}',
            [("f", "{}"), ("g", "{}")],
        ),
        # cut off
        ('<tool_call>{"name": "f", "arguments": {"a": [1', [("f", '{"a": [1')]),
        ('<tool_call>{"name": "f', ['<tool_call>{"name": "f']),
        # not calls
        ('{"name": "f", "arguments": {}}', ['{"name": "f", "arguments": {}}']),
        ("<tool_call>hello</tool_call>", ["<tool_call>hello</tool_call>"]),
        ('<tool_call>{"name": 3}</tool_call>', ['<tool_call>{"name": 3}</tool_call>']),
        (
            '<tool_call>{"name": "f", "arguments": [1]}',
            ['<tool_call>{"name": "f", "arguments": [1]}'],
        ),
        ('<tool_call><tool_call>{"name": "f"}</tool_call>', ["<tool_call>", ("f", "{}")]),
        ('a\n\n<tool_call>{"name": "f"}</tool_call>\n', ["a", ("f", "{}")]),
    ],
)
def test_hermes(text: str, expected: Parts) -> None:
    assert _parts(text, "hermes") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "f", "parameters": {"a": "}"}}', [("f", '{"a": "}"}')]),
        ('\n<|python_tag|>{"name": "f", "parameters": {}}', [("f", "{}")]),
        ('{"type": "function", "name": "f", "parameters": {}}', [("f", "{}")]),
        ('{"name": "f", "arguments": {}}', [("f", "{}")]),
        (
            '{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}\n',
            [("f", "{}"), ("g", "{}")],
        ),
        ('Wait. <|python_tag|>{"name": "f", "parameters": {}}', ["Wait.", ("f", "{}")]),
        # JSON that is an answer, not a call
        ('{"name": "Bob", "age": 3}', ['{"name": "Bob", "age": 3}']),
        ('{"name": "Bob"}', ['{"name": "Bob"}']),
        ("{}", ["{}"]),
        ('See {"name": "f", "parameters": {}}', ['See {"name": "f", "parameters": {}}']),
        ('<|python_tag|>print("hi")', ['<|python_tag|>print("hi")']),
        ('{"name": "f", "parameters": {}} done; ok', [("f", "{}"), " done; ok"]),
    ],
)
def test_llama3(text: str, expected: Parts) -> None:
    assert _parts(text, "llama3") == expected


def test_a_whole_text() -> None:
    text = 'One moment.\n<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    content, calls = parse_tool_calls(text, "hermes", lambda: "x")
    assert (content, calls) == ("One moment.", (ParsedCall("x", "f", '{"a": 1}'),))


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("... <tool_call>\n{{ tool_call | tojson }}\n</tool_call> ...", "hermes"),
        ("{{- '<|python_tag|>' + tool_call.name }}", "llama3"),
        ("""{"name": function name, "parameters": dictionary} ... role == 'ipython'""", "llama3"),
        ("<tool_call>\n<function=name>\n<parameter=x>", None),
        ("{{ message.content }}", None),
    ],
)
def test_forms_are_told_by_the_template(template: str, form: ToolCallForm | None) -> None:
    assert detect_form(template) == form


# --- forcing a call ----------------------------------------------------------------------------


def _tool(name: str, parameters: dict[str, object] | None = None) -> dict[str, object]:
    function: dict[str, object] = {"name": name}
    if parameters is not None:
        function["parameters"] = parameters
    return {"type": "function", "function": function}


WEATHER = _tool(
    "get_weather",
    {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"city": {"type": "string", "maxLength": 8}},
    },
)
NOW = _tool("now")


@pytest.mark.parametrize("choice", [None, "none", "auto"])
def test_nothing_is_forced(choice: str | None) -> None:
    assert constraint_for([WEATHER], choice, "hermes") is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tools", "choice", "param"),
    [
        ([], "required", "tools"),
        ([NOW], _tool("then"), "tool_choice"),
        ([NOW], {"type": "function"}, "tool_choice"),
        ([_tool('x"')], "required", "tools.0.function.name"),
        ([_tool("x", [1])], "required", "tools.0.function.parameters"),  # type: ignore[arg-type]
    ],
)
def test_impossible_choices_are_refused(tools: list[object], choice: object, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        constraint_for(tools, choice, "hermes")  # type: ignore[arg-type]
    assert caught.value.param == param
