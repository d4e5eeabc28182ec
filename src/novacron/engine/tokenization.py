"""Text to tokens and back, from the files of a Hugging Face folder or a GGUF file. No torch, no
transformers.

Used by the gateway's process (prompts, chat templates, logprobs) and by the engine process
(structured output). Knows nothing of requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from novacron.engine.chat_template import ChatTemplates
from novacron.engine.gguf_tokenizer import read_gguf_tokenizer
from novacron.engine.quoting import Quoting
from novacron.engine.vocabulary import Vocabulary
from novacron.errors import InvalidRequest, ModelLoadError

_NAMED_TOKENS = tuple(
    f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)
_LEGACY_TOKENS = "special_tokens_map.json"


class Tokenizer:
    """The tokenizer and the chat template of one model. Immutable after `load`.

    `eos_token_ids` is the union of what generation_config.json, config.json and
    tokenizer_config.json name, in this order: instruction-tuned models often end a turn with a
    token that only one of the files knows. `json_text` is the text of tokenizer.json, or of what it
    would be.
    """

    def __init__(
        self,
        *,
        json_text: str,
        origin: str,
        named_tokens: Mapping[str, str],
        configured_eos_ids: Sequence[int],
        chat_templates: ChatTemplates | None,
    ) -> None:
        self.json_text = json_text
        self._tokenizer = _build(json_text, origin, named_tokens.values())
        self._quoting = Quoting(
            _special_ids(self._tokenizer), lambda: _build(json_text, origin, named_tokens.values())
        )
        self._vocabulary = Vocabulary(self._tokenizer, origin)
        self._chat_templates = chat_templates
        self.vocab_size: int = self._tokenizer.get_vocab_size()
        self.bos_token_id = self._id_of(named_tokens.get("bos_token"))
        named_eos = self._id_of(named_tokens.get("eos_token"))
        eos_ids = [*configured_eos_ids, *(() if named_eos is None else (named_eos,))]
        self.eos_token_ids: tuple[int, ...] = tuple(dict.fromkeys(eos_ids))

    @classmethod
    def load(cls, path: Path, chat_template: Path | None = None) -> Tokenizer:
        """Read the folder or the GGUF file `path`; a given `chat_template` file replaces the
        model's own. If a tokenizer.json lies beside a GGUF file, that folder is read instead.

        Raises ModelLoadError naming the file and the reason.
        """
        if not path.is_file():
            return cls._load_folder(path, chat_template)
        if (path.parent / "tokenizer.json").is_file():
            return cls._load_folder(path.parent, chat_template)
        found = read_gguf_tokenizer(path)
        return cls(
            json_text=found.json_text,
            origin=str(path),
            named_tokens=found.named_tokens,
            configured_eos_ids=found.eos_token_ids,
            chat_templates=_compiled(
                _given_template(chat_template) or (path, found.chat_templates), found.named_tokens
            ),
        )

    @classmethod
    def _load_folder(cls, folder: Path, chat_template: Path | None) -> Tokenizer:
        json_text = _read_tokenizer_json(folder)
        config = _read_json(folder / "tokenizer_config.json")
        named_tokens = _named_tokens(folder, config)
        return cls(
            json_text=json_text,
            origin=str(folder / "tokenizer.json"),
            named_tokens=named_tokens,
            configured_eos_ids=[
                *_eos_ids(folder / "generation_config.json"),
                *_eos_ids(folder / "config.json"),
            ],
            chat_templates=_compiled(
                _given_template(chat_template) or _templates_of_folder(folder, config),
                named_tokens,
            ),
        )

    @property
    def has_chat_template(self) -> bool:
        return self._chat_templates is not None

    def chat_template_source(self, *, has_tools: bool) -> str:
        """The text of the chat template for messages with or without tools; empty without one."""
        if self._chat_templates is None:
            return ""
        return self._chat_templates.source(has_tools=has_tools)

    @property
    def special_token_ids(self) -> frozenset[int]:
        return self._vocabulary.special_ids

    @property
    def vocabulary(self) -> Vocabulary:
        """What each token stands for; shared by every detokenizer."""
        return self._vocabulary

    def encode(
        self, text: str, *, add_special_tokens: bool = True, parse_special: bool = True
    ) -> list[int]:
        """Token ids of `text`; special tokens such as BOS are added where the model wants them.

        Those that stand in the text become tokens if `parse_special`, else they stay text.
        """
        if not parse_special:
            text = self._quoting.quote(text)
        try:
            if self._quoting.is_quoted(text):
                return self._quoting.encode(text, add_special_tokens=add_special_tokens)
            encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        except TypeError as error:  # what the library says of text it cannot write as UTF-8
            raise InvalidRequest(
                "The text is not valid Unicode: it holds half of a surrogate pair."
            ) from error
        ids: list[int] = encoding.ids
        return ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        data = self._vocabulary.join(ids, skip_special_tokens=skip_special_tokens)
        return data.decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """What the token adds to a text; may be a part of a character. Empty if unknown."""
        return self._vocabulary.bytes_of(token_id)

    def token_text(self, token_id: int) -> str:
        """`token_bytes` as text, with U+FFFD for bytes that are no whole character."""
        return self._vocabulary.bytes_of(token_id).decode("utf-8", "replace")

    def render_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, object] | None = None,
    ) -> str:
        """The prompt text of a chat. Raises InvalidRequest if the template cannot render it."""
        if self._chat_templates is None:
            raise InvalidRequest(
                "This model has no chat template, so it cannot take messages. Use /v1/completions, "
                "or start the server with --chat-template FILE."
            )
        return self._chat_templates.render(
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            template_kwargs=template_kwargs or {},
        )

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, object] | None = None,
    ) -> list[int]:
        """Token ids of a chat. No special tokens are added: the template writes its own BOS.

        Only the template's special tokens are tokens; those in what it is given stay text.
        """
        quote = self._quoting.quote
        text = self.render_chat(
            quote(messages),
            tools=quote(tools),
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            template_kwargs=quote(template_kwargs),
        )
        return self.encode(text, add_special_tokens=False)

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self._tokenizer.token_to_id(token)


def _build(json_text: str, origin: str, named_tokens: Iterable[str]) -> tokenizers.Tokenizer:
    try:
        tokenizer = tokenizers.Tokenizer.from_str(json_text)
    except Exception as error:  # the library raises bare Exception
        raise ModelLoadError(f"{origin} is not a valid tokenizer file: {error}") from error
    tokenizer.no_truncation()  # training leftovers in some files; prompts are never cut silently
    tokenizer.no_padding()
    _make_special(tokenizer, named_tokens)
    return tokenizer


def _special_ids(tokenizer: tokenizers.Tokenizer) -> dict[str, int]:
    added = tokenizer.get_added_tokens_decoder()
    return {token.content: token_id for token_id, token in added.items() if token.special}


def _make_special(tokenizer: tokenizers.Tokenizer, names: Iterable[str]) -> None:
    """A token named as BOS, EOS and so on is special, even where tokenizer.json says only that it
    exists. Those it does not know at all would need ids that the model has no embedding for."""
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    plain = [
        name for name in names if name not in added and tokenizer.token_to_id(name) is not None
    ]
    tokenizer.add_special_tokens(plain)


def _read_tokenizer_json(folder: Path) -> str:
    if not folder.is_dir():
        raise ModelLoadError(f"{folder} is not a folder. Give the folder of a Hugging Face model.")
    path = folder / "tokenizer.json"
    if path.is_file():
        return _read_text(path)
    others = [n for n in ("tokenizer.model", "vocab.json", "tekken.json") if (folder / n).is_file()]
    if others:
        raise ModelLoadError(
            f"{folder} has {others[0]} but no tokenizer.json, the only format read here. Convert "
            "it once with transformers: AutoTokenizer.from_pretrained(folder)"
            ".save_pretrained(folder)."
        )
    raise ModelLoadError(
        f"{path} is missing. Copy the tokenizer's files into the folder, or name the folder that "
        "has them with --tokenizer."
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(_read_text(path))
    except ValueError as error:
        raise ModelLoadError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path} must hold a JSON object, not {type(content).__name__}.")
    return content


def _named_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The tokens that templates know by name, as `bos_token`.

    special_tokens_map.json counts for folders from before `added_tokens_decoder` existed.
    """
    legacy = {} if "added_tokens_decoder" in config else _read_json(folder / _LEGACY_TOKENS)
    sources = {**config, **legacy}
    contents = {name: _token_content(sources.get(name)) for name in _NAMED_TOKENS}
    return {name: content for name, content in contents.items() if content is not None}


def _token_content(token: object) -> str | None:
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _eos_ids(path: Path) -> list[int]:
    """The `eos_token_id` of a config file: a number, a list or nothing; negative means none."""
    config = _read_json(path)
    text_config = config.get("text_config")
    value = config.get("eos_token_id")
    if value is None and isinstance(text_config, dict):
        value = text_config.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(token_id, bool) or not isinstance(token_id, int) for token_id in ids):
        raise ModelLoadError(f"{path}: eos_token_id is {value!r}, not a number or a list of them.")
    return [token_id for token_id in ids if token_id >= 0]


_Templates = tuple[Path, Mapping[str, str]]  # the file they come from, and their texts by name


def _compiled(templates: _Templates, named_tokens: Mapping[str, str]) -> ChatTemplates | None:
    origin, sources = templates
    if not sources:
        return None
    return ChatTemplates(sources, origin=str(origin), named_tokens=named_tokens)


def _templates_of_folder(folder: Path, config: Mapping[str, Any]) -> _Templates:
    """From template files, else from tokenizer_config.json."""
    if sources := _template_files(folder):
        return folder / "chat_template.jinja", sources
    origin = folder / "tokenizer_config.json"
    return origin, _configured_templates(origin, config.get("chat_template"))


def _given_template(path: Path | None) -> _Templates | None:
    return None if path is None else (path, {"default": _read_text(path)})


def _template_files(folder: Path) -> dict[str, str]:
    paths = {path.stem: path for path in sorted(folder.glob("additional_chat_templates/*.jinja"))}
    main = folder / "chat_template.jinja"
    if main.is_file():
        paths["default"] = main
    return {name: _read_text(path) for name, path in paths.items()}


def _configured_templates(path: Path, value: object) -> dict[str, str]:
    """A template, or a list of {"name", "template"}."""
    match value:
        case None:
            return {}
        case str():
            return {"default": value}
        case list():
            return dict(_named_template(path, entry) for entry in value)
        case _:
            raise ModelLoadError(f"{path}: chat_template must be a text or a list of named texts.")


def _named_template(path: Path, entry: object) -> tuple[str, str]:
    match entry:
        case {"name": str(name), "template": str(template)}:
            return name, template
        case _:
            raise ModelLoadError(
                f"{path}: each entry of chat_template needs the texts 'name' and 'template'."
            )
