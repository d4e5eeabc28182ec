"""Tool calls in the text of a model: found while it streams, and forced by a grammar.

Called by the chat routes. Two forms are known. Hermes (also Qwen):
    <tool_call>{"name": "f", "arguments": {...}}</tool_call>
Llama 3 (separated by ";" where there are several; the tag is often left out):
    <|python_tag|>{"name": "f", "parameters": {...}}

What does not turn out to be a call reaches the client as content, unchanged. Of a call the client
gets the name and the JSON text of the arguments; the markup, and whitespace next to it, is dropped.
Everything is decided character by character, so the result does not depend on how the text was cut
into pieces.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, Literal

from novacron.errors import InvalidRequest
from novacron.gateway.tool_call_scanner import CallScanner
from novacron.records.request import StructuredOutput

ToolCallForm = Literal["hermes", "llama3"]
ToolChoice = Literal["none", "auto", "required"] | Mapping[str, object]

_WHITESPACE: Final = " \t\r\n"
_JSON_WHITESPACE: Final = r"[ \t\r\n]{1,64}"
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """A piece of the text that is meant for the reader."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the call number `index`. Its first piece has `id` and `name`, and no arguments."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


Delta = ContentDelta | ToolCallDelta


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """A whole call; `arguments` is JSON text, unless the model was cut off or wrote none."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class _Markup:
    """What surrounds the calls of a form."""

    opener: str
    closer: str  # "" if nothing closes a call
    between: str  # characters, beside whitespace, that may stand between two calls
    before_closer: str  # likewise between a call and its closer: brackets that models add
    bare: bool  # whether a call may stand without its opener, where no text came before
    arguments_key: str


_MARKUPS: Final[dict[ToolCallForm, _Markup]] = {
    "hermes": _Markup("<tool_call>", "</tool_call>", "", "}", False, "arguments"),
    "llama3": _Markup("<|python_tag|>", "", ";", "", True, "parameters"),
}


def detect_form(chat_template_text: str) -> ToolCallForm | None:
    """The form that a chat template teaches its model, or None if we do not know it."""
    if "<tool_call>" in chat_template_text:
        # Other models put XML instead of JSON between the same tags.
        is_xml = "<function=" in chat_template_text or "<arg_key>" in chat_template_text
        return None if is_xml else "hermes"
    if "<|python_tag|>" in chat_template_text:
        return "llama3"
    return (
        "llama3"
        if '"parameters"' in chat_template_text and "ipython" in chat_template_text
        else None
    )


def new_call_id() -> str:
    """In the shape of OpenAI's; long enough never to meet another one."""
    return f"call_{secrets.token_hex(12)}"


def call_ids(nonce: str, choice: int) -> Callable[[], str]:
    """The ids of one answer's calls, one after the other: the same for whoever tells it again."""
    numbers = count()

    def next_id() -> str:
        digest = hashlib.sha256(f"{nonce}/{choice}/{next(numbers)}".encode())
        return f"call_{digest.hexdigest()[:24]}"

    return next_id


def make_parser(form: ToolCallForm, new_id: Callable[[], str] = new_call_id) -> ToolCallParser:
    return ToolCallParser(_MARKUPS[form], new_id)


def parse_tool_calls(
    text: str, form: ToolCallForm, new_id: Callable[[], str] = new_call_id
) -> tuple[str, tuple[ParsedCall, ...]]:
    """The content and the calls of a whole text."""
    parser = make_parser(form, new_id)
    content: list[str] = []
    calls: list[ParsedCall] = []
    for delta in (*parser.push(text), *parser.finish()):
        match delta:
            case ContentDelta():
                content.append(delta.text)
            case ToolCallDelta(id=str(call_id), name=str(name)):
                calls.append(ParsedCall(call_id, name, delta.arguments))
            case ToolCallDelta():
                call = calls[delta.index]
                arguments = call.arguments + delta.arguments
                calls[delta.index] = ParsedCall(call.id, call.name, arguments)
    return "".join(content), tuple(calls)


class ToolCallParser:
    """One message, piece by piece. Text is held back only while it may be markup."""

    def __init__(self, markup: _Markup, new_id: Callable[[], str]) -> None:
        self._markup = markup
        self._new_id = new_id
        self._feed: Callable[[str], None] = self._feed_text
        self._held = ""  # text that may turn out to be markup
        self._gap = _WHITESPACE  # characters that are dropped next to a call
        self._may_be_bare = markup.bare
        self._scanner = CallScanner(arguments_required=markup.bare)
        self._scanned: list[str] = []  # the text of what may be a call, until it is one
        self._num_calls = 0
        self._deltas: list[Delta] = []

    def push(self, text: str) -> list[Delta]:
        for character in text:
            self._feed(character)
        return self._take_deltas()

    def finish(self) -> list[Delta]:
        """What was held back. The message has ended; the parser is used up."""
        if self._feed == self._feed_text:
            if self._num_calls == 0 or self._held.strip(self._gap):
                self._emit_content(self._held)
        elif self._feed == self._feed_call:
            self._emit_content("".join(self._scanned))
        self._held = ""
        self._scanned.clear()
        return self._take_deltas()

    def _feed_text(self, character: str) -> None:
        self._held += character
        candidate = self._held.lstrip(self._gap)
        if candidate == self._markup.opener:
            self._begin_call()
        elif self._may_be_bare and candidate == "{":
            self._begin_call()
            self._scanner.feed(character)
        elif not self._markup.opener.startswith(candidate):
            self._release()

    def _release(self) -> None:
        """Emit what is held, save an end of it that may still be the start of markup."""
        self._may_be_bare = False
        self._gap = _WHITESPACE
        end = next(i for i in range(1, len(self._held) + 1) if self._may_open(self._held[i:]))
        self._emit_content(self._held[:end])
        self._held = self._held[end:]

    def _may_open(self, text: str) -> bool:
        return self._markup.opener.startswith(text.lstrip(self._gap))

    def _begin_call(self) -> None:
        self._scanned = [self._held]
        self._held = ""
        self._scanner = CallScanner(arguments_required=self._markup.bare)
        self._feed = self._feed_call

    def _feed_call(self, character: str) -> None:
        self._scanner.feed(character)
        if self._scanner.is_broken:
            self._emit_content("".join(self._scanned))
            self._may_be_bare = False
            self._go_on_with_text(character)
            return
        self._scanned.append(character)
        if self._scanner.is_call:
            self._scanned.clear()
            self._emit_call(self._scanner.name)
            self._feed = self._feed_known_call
            self._emit_arguments()

    def _feed_known_call(self, character: str) -> None:
        self._scanner.feed(character)
        if self._scanner.is_broken:  # the call stands, what follows is text
            self._go_on_with_text(character)
        else:
            self._emit_arguments()

    def _emit_arguments(self) -> None:
        arguments = self._scanner.take_arguments()
        if arguments:
            self._emit_fragment(arguments)
        if self._scanner.is_closed:
            self._feed = self._feed_closer
            if not self._markup.closer:
                self._after_call()

    def _feed_closer(self, character: str) -> None:
        self._held += character
        candidate = self._held.lstrip(_WHITESPACE + self._markup.before_closer)
        if candidate == self._markup.closer:
            self._after_call()
        elif not self._markup.closer.startswith(candidate):
            self._go_on_with_text(self._held)

    def _after_call(self) -> None:
        self._may_be_bare = self._markup.bare
        self._gap = _WHITESPACE + self._markup.between
        self._go_on_with_text("")

    def _go_on_with_text(self, text: str) -> None:
        self._held = ""
        self._feed = self._feed_text
        for character in text:
            self._feed(character)

    def _emit_content(self, text: str) -> None:
        if not text:
            return
        last = self._deltas[-1] if self._deltas else None
        if isinstance(last, ContentDelta):
            self._deltas[-1] = ContentDelta(last.text + text)
        else:
            self._deltas.append(ContentDelta(text))

    def _emit_call(self, name: str | None) -> None:
        self._deltas.append(ToolCallDelta(self._num_calls, self._new_id(), name))
        self._num_calls += 1

    def _emit_fragment(self, arguments: str) -> None:
        index = self._num_calls - 1
        last = self._deltas[-1] if self._deltas else None
        if isinstance(last, ToolCallDelta) and last.name is None and last.index == index:
            arguments = last.arguments + arguments
            self._deltas.pop()
        self._deltas.append(ToolCallDelta(index, arguments=arguments))

    def _take_deltas(self) -> list[Delta]:
        taken, self._deltas = self._deltas, []
        return taken


def constraint_for(
    tools: Sequence[Mapping[str, object]],
    tool_choice: ToolChoice | None,
    form: ToolCallForm,
    *,
    parallel: bool = True,
) -> StructuredOutput | None:
    """A grammar of calls only, where `tool_choice` is "required" or names a function.

    `tools` and `tool_choice` are as in OpenAI's API. A named function is called once; required
    tools may be called several times if `parallel`. Raises InvalidRequest.
    """
    if tool_choice is None or tool_choice in ("none", "auto"):
        return None
    functions = [_function(tool, f"tools.{i}") for i, tool in enumerate(tools)]
    if isinstance(tool_choice, Mapping):
        named = _function(tool_choice, "tool_choice").name
        functions = [function for function in functions if function.name == named]
        parallel = False
        if not functions:
            raise InvalidRequest(
                f"tool_choice names the function '{named}', which is not among the tools.",
                param="tool_choice",
            )
    if not functions:
        raise InvalidRequest("tool_choice 'required' needs tools to choose from.", param="tools")
    return StructuredOutput("grammar", _lark_grammar(functions, _MARKUPS[form], parallel))


@dataclass(frozen=True, slots=True)
class _Function:
    name: str
    parameters: Mapping[str, object]


def _function(tool: Mapping[str, object], where: str) -> _Function:
    function = tool.get("function")
    if not isinstance(function, Mapping):
        raise InvalidRequest(f"{where} has no 'function'.", param=where)
    name = function.get("name")
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise InvalidRequest(
            f"{where}.function.name must be 1 to 64 letters, digits, dots, hyphens and "
            "underscores.",
            param=f"{where}.function.name",
        )
    parameters = function.get("parameters")
    if parameters is None:  # a function without parameters, says OpenAI's reference
        return _Function(name, {"properties": {}, "additionalProperties": False})
    if not isinstance(parameters, Mapping):
        raise InvalidRequest(
            f"{where}.function.parameters must be a JSON schema.",
            param=f"{where}.function.parameters",
        )
    return _Function(name, parameters)


def _lark_grammar(functions: Sequence[_Function], markup: _Markup, parallel: bool) -> str:
    separator = f"{markup.between} " if markup.between else "\n"
    more = f" ({json.dumps(separator)} call)*" if parallel else ""
    rules = [f"start: call{more}"]
    alternatives = []
    for i, function in enumerate(functions):
        head = f'{{"name": "{function.name}", "{markup.arguments_key}": '
        tail = "}"
        if markup.closer:
            head, tail = f"{markup.opener}\n{head}", f"{tail}\n{markup.closer}"
        alternatives.append(f"{json.dumps(head)} arguments_{i} {json.dumps(tail)}")
        rules.append(f"arguments_{i}: %json {_arguments_schema(function.parameters)}")
    rules.insert(1, f"call: {' | '.join(alternatives)}")
    return "\n".join(rules)


def _arguments_schema(parameters: Mapping[str, object]) -> str:
    """Arguments are an object whatever the schema says, and whitespace in them is bounded."""
    options = {"whitespace_pattern": _JSON_WHITESPACE}
    return json.dumps({**parameters, "type": "object", "x-guidance": options})
