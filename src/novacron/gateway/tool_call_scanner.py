"""Reads one JSON object that may be a tool call, character by character, while it is generated.

Called by the tool call parsers. Knows JSON and the members of a call, nothing of the markup around.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

_WHITESPACE: Final = " \t\r\n"
_ARGUMENT_KEYS: Final = ("arguments", "parameters")  # Hermes, Llama 3


class CallScanner:
    """Scans {"name": "...", "arguments": {...}}, members in any order, others passed over.

    Arguments that are a string are taken for JSON text in a string; null for none. After a
    character that cannot belong to such an object, `is_broken` stays true and that character is
    not part of what was scanned.
    """

    def __init__(self, *, arguments_required: bool) -> None:
        self._arguments_required = arguments_required
        self._next: Callable[[str], None] = self._object_start
        self._key: str | None = None
        self._text: list[str] = []  # of the string or literal being read
        self._escaped = False
        self._in_string = False
        self._depth = 0
        self._streams = False
        self._arguments: list[str] = []  # read and not yet taken
        self._has_arguments = False
        self.name: str | None = None
        self.is_closed = False
        self.is_broken = False

    @property
    def is_call(self) -> bool:
        """Enough has been read to tell the client of a call."""
        return self.name is not None and self._has_arguments and not self.is_broken

    def feed(self, character: str) -> None:
        assert not self.is_closed
        assert not self.is_broken
        self._next(character)

    def take_arguments(self) -> str:
        """The JSON text of the arguments that was read since the last call."""
        taken = "".join(self._arguments)
        self._arguments.clear()
        return taken

    def _object_start(self, character: str) -> None:
        if character == "{":
            self._next = self._first_key
        elif character not in _WHITESPACE:
            self.is_broken = True

    def _first_key(self, character: str) -> None:
        if character == "}":
            self._close()
        else:
            self._next_key(character)

    def _next_key(self, character: str) -> None:
        if character == '"':
            self._begin_string(self._end_key)
        elif character not in _WHITESPACE:
            self.is_broken = True

    def _begin_string(self, end: Callable[[str], None]) -> None:
        self._text = ['"']
        self._escaped = False
        self._next = lambda character: self._string(character, end)

    def _string(self, character: str, end: Callable[[str], None]) -> None:
        self._text.append(character)
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            try:
                value: str = json.loads("".join(self._text), strict=False)
            except ValueError:
                self.is_broken = True
            else:
                end(value)

    def _end_key(self, key: str) -> None:
        self._key = key
        self._next = self._colon

    def _colon(self, character: str) -> None:
        if character == ":":
            self._next = self._value_start
        elif character not in _WHITESPACE:
            self.is_broken = True

    @property
    def _is_arguments(self) -> bool:
        return self._key in _ARGUMENT_KEYS and not self._has_arguments

    def _value_start(self, character: str) -> None:
        if character in _WHITESPACE:
            return
        if character == '"':
            self._begin_string(self._end_string_value)
        elif self._key == "name" or (self._is_arguments and character == "["):
            self.is_broken = True
        elif character in "{[":
            self._begin_nested(character)
        else:
            self._text = []
            self._next = self._literal
            self._literal(character)

    def _end_string_value(self, value: str) -> None:
        if self._key == "name" and self.name is None:
            self.name = value
            self.is_broken = not value
        elif self._is_arguments:
            self._arguments.append(value)
            self._has_arguments = True
        self._next = self._value_end

    def _begin_nested(self, character: str) -> None:
        self._streams = self._is_arguments
        self._has_arguments = self._has_arguments or self._streams
        self._depth = 0
        self._in_string = self._escaped = False
        self._next = self._nested
        self._nested(character)

    def _nested(self, character: str) -> None:
        if self._streams:
            self._arguments.append(character)
        if self._escaped:
            self._escaped = False
        elif self._in_string:
            self._escaped = character == "\\"
            self._in_string = character != '"'
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            if self._depth == 0:
                self._next = self._value_end

    def _literal(self, character: str) -> None:
        if character not in _WHITESPACE and character not in ",}":
            self._text.append(character)
            return
        literal = "".join(self._text)
        if not _is_literal(literal) or (self._is_arguments and literal != "null"):
            self.is_broken = True
            return
        if self._is_arguments:
            self._arguments.append("{}")
            self._has_arguments = True
        self._next = self._value_end
        self._value_end(character)

    def _value_end(self, character: str) -> None:
        if character == ",":
            self._next = self._next_key
        elif character == "}":
            self._close()
        elif character not in _WHITESPACE:
            self.is_broken = True

    def _close(self) -> None:
        if not self._has_arguments and not self._arguments_required:
            self._arguments.append("{}")
            self._has_arguments = True
        if self.name is None or not self._has_arguments:
            self.is_broken = True
        else:
            self.is_closed = True


def _is_literal(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
