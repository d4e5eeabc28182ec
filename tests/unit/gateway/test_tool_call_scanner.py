import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.gateway.tool_call_scanner import CallScanner

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


def _scan(text: str, *, arguments_required: bool = True) -> CallScanner:
    scanner = CallScanner(arguments_required=arguments_required)
    for character in text:
        if scanner.is_broken or scanner.is_closed:
            break
        scanner.feed(character)
    return scanner


@given(
    name=st.text(min_size=1, max_size=5),
    arguments=st.dictionaries(st.text(max_size=4), json_values, max_size=3),
    others=st.dictionaries(st.sampled_from(["type", "id", "x"]), json_values),
    arguments_first=st.booleans(),
)
def test_finds_name_and_arguments_among_other_members(
    name: str, arguments: dict[str, object], others: dict[str, object], arguments_first: bool
) -> None:
    members: list[tuple[str, object]] = [("name", name), ("arguments", arguments)]
    if arguments_first:
        members.reverse()
    scanner = _scan(json.dumps(dict([*others.items(), *members])))
    assert scanner.is_closed
    assert scanner.is_call
    assert scanner.name == name
    assert json.loads(scanner.take_arguments()) == arguments
    assert scanner.take_arguments() == ""


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "{'name'",
        '{"name" "f"',
        '{"name": 3',
        '{"name": ""}',
        '{"name": "f", }',
        '{"name": "\\x"',
        '{"name": "f", "arguments": 3}',
        '{"name": "f", "arguments": [',
        '{"name": "f", "other": nul}',
        '{"name": "f"}',
        '{"arguments": {}}',
        '{"name": "f", "arguments": {} "',
    ],
)
def test_breaks_on_what_is_no_call(text: str) -> None:
    scanner = _scan(text)
    assert scanner.is_broken
    assert not scanner.is_call


def test_without_arguments() -> None:
    scanner = _scan('{"name": "f"}', arguments_required=False)
    assert scanner.is_closed
    assert scanner.take_arguments() == "{}"
