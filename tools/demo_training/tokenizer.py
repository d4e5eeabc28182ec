"""The byte-level BPE tokenizer of the bundled model, and how chats become tokens.

Numbers are split into digits, a digit keeping the space before it, so that a value follows its
mark at once. Each role is one special token and a message ends with `<|end|>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from novacron.demo.examples import Message

PAD: Final = "<|pad|>"
BOS: Final = "<|bos|>"
END: Final = "<|end|>"
ROLES: Final = ("system", "user", "assistant")
SPECIAL_TOKENS: Final = (
    PAD,
    BOS,
    END,
    *(f"<|{role}|>" for role in ROLES),
    "<|reserved_0|>",
    "<|reserved_1|>",
)

CHAT_TEMPLATE: Final = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- set role = 'system' if message.role == 'developer' else message.role -%}
{%- set role = role if role in ['system', 'user', 'assistant'] else 'user' -%}
{{- '<|' + role + '|>' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- elif message.content -%}
{%- for part in message.content if part.type == 'text' -%}{{- part.text -}}{%- endfor -%}
{%- endif -%}
{{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""

_SPACE: Final = "\u0120"  # how byte-level BPE writes a space
_PIECES: Final = r"'(?:[sdmt]|ll|ve|re)\b| ?\d| ?\p{L}+| ?[^\s\p{L}\d]+|\s"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer with exactly `vocab_size` entries that adds `<|bos|>` before a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"only {tokenizer.get_vocab_size()} of {vocab_size} tokens were found")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, token_id(tokenizer, BOS))]
    )
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Id of a token that must exist."""
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"tokenizer has no token {token!r}")
    return found


class ChatEncoder:
    """Turns texts and messages into token ids, as the chat template does."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.pad = token_id(tokenizer, PAD)
        self.bos = token_id(tokenizer, BOS)
        self.end = token_id(tokenizer, END)
        self.role = {role: token_id(tokenizer, f"<|{role}|>") for role in ROLES}

    @classmethod
    def load(cls, path: Path) -> ChatEncoder:
        return cls(Tokenizer.from_file(str(path)))

    def word_pairs(self) -> list[tuple[int, int]]:
        """Tokens of one word of at least three letters, (without, with) a space before it."""
        vocabulary = self._tokenizer.get_vocab()
        return sorted(
            (bare, vocabulary[_SPACE + token])
            for token, bare in vocabulary.items()
            if len(token) >= 3 and token.isalpha() and _SPACE + token in vocabulary
        )

    def text(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def message(self, message: Message) -> list[int]:
        return [self.role[message.role], *self.text(message.content), self.end]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The chat up to the point where the assistant starts to answer."""
        ids = [self.bos]
        for message in messages:
            ids += self.message(message)
        return [*ids, self.role["assistant"]]
