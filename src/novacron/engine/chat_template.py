"""Chat templates: the program, shipped with a model, that turns messages into one prompt text.

Templates are code from strangers, so they run in jinja2's immutable sandbox and see only plain
data. They render exactly as transformers' apply_chat_template does it: its environment (whitespace
rules, filters, functions, the generation tag, the marker of continue_final_message) is the de-facto
standard that published templates are written for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import msgspec
from jinja2 import Environment, Template, TemplateError, TemplateSyntaxError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.nodes import CallBlock
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from novacron.errors import InvalidRequest, ModelLoadError

_CONTINUE_MARKER = "NOVACRON_CONTINUES_HERE "
_RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")


class ChatTemplates:
    """The templates of one model. `origin` names the file they came from, for messages.

    A model may bring several: "default", and "tool_use" which is taken when tools are given.
    Raises ModelLoadError if one of them is not a valid template.
    """

    def __init__(
        self, sources: Mapping[str, str], *, origin: str, named_tokens: Mapping[str, str]
    ) -> None:
        environment = _environment()
        self._templates = {
            name: _compile(environment, source, name, origin) for name, source in sources.items()
        }
        self._sources = dict(sources)
        self._named_tokens = dict(named_tokens)

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None,
        add_generation_prompt: bool,
        continue_final_message: bool,
        template_kwargs: Mapping[str, object],
    ) -> str:
        """The prompt text. Raises InvalidRequest if the template cannot take these messages."""
        if not messages:
            raise InvalidRequest("messages is empty: send at least one message.", "messages")
        if continue_final_message and add_generation_prompt:
            raise InvalidRequest(
                "continue_final_message and add_generation_prompt exclude each other: the first "
                "goes on with the last message, the second opens a new one.",
                "continue_final_message",
            )
        if reserved := _RESERVED & template_kwargs.keys():
            raise InvalidRequest(
                f"chat_template_kwargs may not set {', '.join(sorted(reserved))}.",
                "chat_template_kwargs",
            )
        chat = [_normalised(message) for message in _plain(messages, "messages")]
        name = self._choose(has_tools=tools is not None)
        cut = _mark_end(chat, self._sources[name]) if continue_final_message else _keep_all
        variables = {
            **self._named_tokens,
            **_plain(template_kwargs, "chat_template_kwargs"),
            "messages": chat,
            "tools": _plain(tools, "tools"),
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        return cut(_run(self._templates[name], variables))

    def source(self, *, has_tools: bool) -> str:
        """The text of the template that would be used. Raises InvalidRequest if none would."""
        return self._sources[self._choose(has_tools=has_tools)]

    def _choose(self, *, has_tools: bool) -> str:
        if has_tools and "tool_use" in self._templates:
            return "tool_use"
        if "default" in self._templates:
            return "default"
        raise InvalidRequest(
            "This model has several chat templates and none of them is called 'default' "
            f"({', '.join(sorted(self._templates))}). Start the server with --chat-template FILE."
        )


def _compile(environment: Environment, source: str, name: str, origin: str) -> Template:
    try:
        return environment.from_string(source)
    except TemplateSyntaxError as error:
        raise ModelLoadError(
            f"{origin}: the chat template '{name}' is invalid at line {error.lineno}: "
            f"{error.message}. Correct it, or give another with --chat-template FILE."
        ) from error


def _run(template: Template, variables: Mapping[str, object]) -> str:
    try:
        return template.render(variables)
    except TemplateError as error:
        raise InvalidRequest(
            f"The model's chat template refuses these messages: {error}", "messages"
        ) from error
    except Exception as error:  # a template is foreign code: it can raise anything
        raise InvalidRequest(
            "The model's chat template cannot render these messages "
            f"({type(error).__name__}: {error}). Check the roles and the types of their fields.",
            "messages",
        ) from error


def _plain(value: object, param: str) -> Any:
    """A copy made of JSON's types only, so that a template gets hold of no object with methods."""
    try:
        return msgspec.to_builtins(value, str_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{param} is not plain JSON data: {error}", param) from error


def _normalised(message: object) -> dict[str, object]:
    """Leave out keys without a value, and give reasoning text under every name in use for it.

    Clients send `content: null` beside tool calls, where templates test whether the key exists.
    """
    if not isinstance(message, dict):
        raise InvalidRequest(f"A message must be an object, not {message!r}.", "messages")
    present = {key: value for key, value in message.items() if value is not None}
    reasoning = next((present[key] for key in _REASONING_KEYS if key in present), None)
    if reasoning is None:
        return present
    return {"thinking": reasoning, **present, "reasoning_content": reasoning}


def _keep_all(rendered: str) -> str:
    return rendered


def _mark_end(chat: list[dict[str, object]], source: str) -> Callable[[str], str]:
    """Mark where the last message's text ends; the result cuts a rendered chat off there."""
    if "content" not in source or not _mark_text(chat[-1]):
        raise InvalidRequest(
            "continue_final_message needs a last message with text to continue.", "messages"
        )

    def cut(rendered: str) -> str:
        end = rendered.rfind(_CONTINUE_MARKER.strip())
        if end < 0:
            raise InvalidRequest(
                "continue_final_message is not possible here: the model's chat template leaves "
                "out the text of the last message.",
                "continue_final_message",
            )
        trimmed = not rendered.startswith(_CONTINUE_MARKER, end)
        return rendered[:end].rstrip() if trimmed else rendered[:end]

    return cut


def _mark_text(message: dict[str, object]) -> bool:
    """Append the marker to the message's text, or to its last text part. False if it has none."""
    content = message.get("content")
    if isinstance(content, str):
        message["content"] = content + _CONTINUE_MARKER
        return True
    for part in reversed(content) if isinstance(content, list) else ():
        text = part.get("text") if isinstance(part, dict) else None
        if isinstance(text, str):
            part["text"] = text + _CONTINUE_MARKER
            return True
    return False


def _environment() -> Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _GenerationTag]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = _new_dict
    environment.globals["namespace"] = _PublicNamespace
    return environment


class _GenerationTag(Extension):
    """{% generation %}: marks what the model wrote, for training. Its body renders as it stands."""

    tags = {"generation"}  # noqa: RUF012 - declared so by jinja2

    def parse(self, parser: Parser) -> CallBlock:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_body"), [], [], body, lineno=line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class _PublicNamespace(Namespace):
    """jinja2's namespace(), without names that could reach into the interpreter."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *positional = args  # so that namespace(self=...) works, as in jinja2
        values = dict(*positional, **kwargs)
        for name in values:
            _require_public(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_public(name)
        super().__setitem__(name, value)


def _require_public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace may not hold {name!r}")


def _new_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike jinja2's own filter, leaves <, > and & as they are: a prompt is not HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
