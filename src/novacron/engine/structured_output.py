"""Grammars that constrain the text of a request, on llguidance. No torch.

EngineCore holds one GrammarState per constrained request, and puts its mask into each
SchedulerOutput. The API process may compile a spec first, to refuse a bad one before it is queued.
Both compile off their loops (llguidance releases the GIL), because compiling takes from one to
some hundred milliseconds; the first one also builds the token trie, about a second for 128k tokens.

A mask costs some tens of microseconds. llguidance bounds the work of a single mask and the size of
a grammar by fuel, but has no time limit, recurses once per reference between rules, and is
quadratic in the length of a regex. So specs are checked for size first, compiled on a thread with
a deep stack, and refused afterwards if that took too much CPU time.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Final, NoReturn

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from novacron.errors import InvalidRequest
from novacron.records.request import StructuredOutput

MAX_SPEC_CHARACTERS: Final = 64 * 1024
MAX_REGEX_CHARACTERS: Final = 8 * 1024  # at most some 50 ms
MAX_LARK_LINES: Final = 2_000  # the most rules that can refer to each other in a chain
MAX_COMPILE_CPU_S: Final = 1.0
MAX_CACHED_GRAMMARS: Final = 128

_PARAM: Final = "structured_output"
# Twice what 2,000 rules, or as many references as fit into a JSON schema, were seen to need. Only
# what is touched is committed.
_STACK_BYTES: Final = 128 * 1024 * 1024
_MAX_LINES: Final = 6
_MAX_LINE_CHARACTERS: Final = 100
# As llguidance's own, save that a grammar cannot take 500 MB of lexer states.
_LIMITS: Final = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
# Models that lose the thread emit whitespace for ever, which JSON allows.
_JSON_WHITESPACE: Final = r"[ \t\r\n]{1,64}"


class GrammarState:
    """Where one request is in its grammar. Belongs to one thread at a time.

    A state that fails, because the grammar needs more work for one token than llguidance allows or
    because a token was accepted that the mask forbade, forbids every token from then on, so that
    the sampler ends the request with an error; `error` says why.
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int, eos_token_ids: frozenset[int]) -> None:
        self._matcher = matcher
        self._num_mask_bytes = (vocab_size + 31) // 32 * 4
        self._eos_token_ids = eos_token_ids

    @property
    def error(self) -> str | None:
        return _reason(self._matcher.get_error()) if self._matcher.is_error() else None

    @property
    def is_stopped(self) -> bool:
        """The text is complete, and nothing but an end-of-sequence token may follow."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def mask(self) -> bytes:
        """The tokens that may come next, as in `SchedulerOutput.token_masks`.

        End-of-sequence tokens are among them if and only if the text so far is complete.
        """
        mask = bytes(self._matcher.compute_bitmask())
        if self._matcher.is_error():
            return bytes(self._num_mask_bytes)
        return mask[: self._num_mask_bytes]  # llguidance adds a word if the last one is full

    def masks(self, draft_token_ids: Sequence[int]) -> tuple[bytes, ...]:
        """The mask for the next token, and for the one after each draft, up to the first draft that
        the grammar forbids. The state stays: a copy looks ahead, since one that fails is lost."""
        masks = [self.mask()]
        if not draft_token_ids:
            return tuple(masks)
        ahead = copy.copy(self)
        ahead._matcher = self._matcher.deep_copy()
        for token_id in draft_token_ids:
            if not masks[-1][token_id >> 3] >> (token_id & 7) & 1:
                break
            ahead.accept((token_id,))
            masks.append(ahead.mask())
        return tuple(masks)

    def accept(self, token_ids: Sequence[int]) -> None:
        """Go on by tokens that masks allowed."""
        for token_id in token_ids:
            # A matcher that is complete takes no end, not even the one that it allows.
            if not (self.is_stopped and token_id in self._eos_token_ids):
                self._matcher.consume_token(token_id)


class GrammarCompiler:
    """Compiles specs against one tokenizer and keeps the newest. Thread-safe; built at once, since
    the token trie waits for the first spec."""

    def __init__(
        self, tokenizer_json_text: str, vocab_size: int, eos_token_ids: Sequence[int]
    ) -> None:
        self._tokenizer_json_text = tokenizer_json_text
        self._vocab_size = vocab_size
        self._eos_token_ids = tuple(eos_token_ids)
        self._tokenizer: LLTokenizer | None = None
        self._cache: OrderedDict[StructuredOutput, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, spec: StructuredOutput) -> GrammarState:
        """A state at the start of the grammar. Raises InvalidRequest with llguidance's reason.

        Blocks until done; specs are compiled one at a time, so that a costly one takes one core.
        """
        with self._lock:
            matcher = self._cache.get(spec)
            if matcher is None:
                grammar = _grammar(spec)
                matcher = _on_deep_stack(lambda: self._compile(grammar))
                self._cache[spec] = matcher
            self._cache.move_to_end(spec)
            if len(self._cache) > MAX_CACHED_GRAMMARS:
                self._cache.popitem(last=False)
            own = matcher.deep_copy()
        return GrammarState(own, self._vocab_size, frozenset(self._eos_token_ids))

    def _compile(self, grammar: str) -> LLMatcher:
        tokenizer = self._tokenizer = self._tokenizer or self._build_tokenizer()
        started_s = time.thread_time()
        matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=_LIMITS)
        if not matcher.is_error():
            matcher.compute_bitmask()  # the first one is the costliest and finds empty grammars
        if matcher.is_error():
            _refuse(f"The grammar cannot be used: {_reason(matcher.get_error())}")
        if time.thread_time() - started_s > MAX_COMPILE_CPU_S:
            _refuse(
                f"The grammar takes more than {MAX_COMPILE_CPU_S:g} s to compile. Use fewer "
                f"properties and alternatives, or shorter patterns."
            )
        return matcher

    def _build_tokenizer(self) -> LLTokenizer:
        if not self._eos_token_ids:
            _refuse("Structured output needs an end-of-sequence token, which this model has not.")
        try:
            return LLTokenizer(
                self._tokenizer_json_text,
                n_vocab=self._vocab_size,
                eos_token=list(self._eos_token_ids),
            )
        except ValueError as error:
            _refuse(f"Structured output does not work with this model's tokenizer: {error}.")


def _grammar(spec: StructuredOutput) -> str:
    """The spec in llguidance's form, after the checks that llguidance does not make."""
    _check_text(spec.spec)
    match spec.kind:
        case "json_object":
            return _json_grammar({"type": "object"})
        case "json_schema":
            return _json_schema_grammar(spec.spec)
        case "regex":
            _check_size("regex", len(spec.spec), MAX_REGEX_CHARACTERS)
            return str(LLMatcher.grammar_from_regex(spec.spec))
        case "choice":
            return _choice_grammar(spec.spec)
        case "grammar":
            # Every rule needs a line of its own.
            _check_size("number of lines", spec.spec.count("\n"), MAX_LARK_LINES)
            return str(LLMatcher.grammar_from_lark(spec.spec))


def _check_text(text: str) -> None:
    _check_size("specification", len(text), MAX_SPEC_CHARACTERS)
    try:
        text.encode()
    except UnicodeEncodeError:
        _refuse("The specification holds half of a surrogate pair, which is not text.")


def _check_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        _refuse(f"The {name} is too large: {size}, where {limit} is the limit.")


def _json_schema_grammar(text: str) -> str:
    schema = _parse_json(text)
    if not isinstance(schema, dict):
        _refuse("A JSON schema must be a JSON object.")
    num_pattern_characters = 0
    for key, value in _members(schema):
        if "pattern" in key and isinstance(value, str | dict):
            patterns = [value] if isinstance(value, str) else value  # keys of patternProperties
            num_pattern_characters += sum(map(len, patterns))
    _check_size("sum of the schema's patterns", num_pattern_characters, MAX_REGEX_CHARACTERS)
    return _json_grammar(schema)


def _json_grammar(schema: dict[str, object]) -> str:
    try:
        grammar = LLMatcher.grammar_from_json_schema(
            schema, overrides={"whitespace_pattern": _JSON_WHITESPACE}
        )
    except ValueError as error:  # whole numbers of more than 64 bits
        _refuse(f"The JSON schema cannot be used: {error}")
    return str(grammar)


def _members(value: object) -> Iterator[tuple[str, object]]:
    """All keys with their values, at every depth."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _choice_grammar(text: str) -> str:
    choices = _parse_json(text)
    if not isinstance(choices, list) or not choices:
        _refuse("choice must be a JSON list with at least one string.")
    if not all(isinstance(choice, str) and choice for choice in choices):
        _refuse("choice must hold strings that are not empty.")
    return str(LLMatcher.grammar_from_lark("start: " + " | ".join(map(_lark_string, choices))))


def _lark_string(text: str) -> str:
    """As in JSON, but DEL must not stand for itself."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _parse_json(text: str) -> object:
    try:
        value: object = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        _refuse(f"The specification is not JSON: {error}.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")


def _on_deep_stack(compile_grammar: Callable[[], LLMatcher]) -> LLMatcher:
    """Run on a thread whose stack holds the recursion of the largest grammar that we let through;
    on a usual stack it would take the process down."""
    result: Future[LLMatcher] = Future()

    def run() -> None:
        try:
            result.set_result(compile_grammar())
        except BaseException as error:  # a panic of the library, too, must reach the caller
            result.set_exception(error)

    usual_bytes = threading.stack_size(_STACK_BYTES)
    try:
        thread = threading.Thread(target=run, name="compile-grammar", daemon=True)
        thread.start()
    finally:
        threading.stack_size(usual_bytes)
    return result.result()


def _reason(message: str) -> str:
    """llguidance's message, without the dump of its state and the backtrace of a panic. Lines are
    shortened one by one, because those that quote the spec come before the reason."""
    for marker in ("<non-verbose/>", "<state>", "<backtrace>"):
        message = message.split(marker)[0]
    lines = [
        line if len(line) <= _MAX_LINE_CHARACTERS else f"{line[:_MAX_LINE_CHARACTERS]}..."
        for line in message.strip().splitlines()[:_MAX_LINES]
    ]
    return "\n".join(lines)


def _refuse(message: str) -> NoReturn:
    raise InvalidRequest(message, param=_PARAM)
