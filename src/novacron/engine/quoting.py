"""Special tokens in texts of users, which stay text: only a chat template may open or end a turn.

Before a template is rendered, special tokens in its input are replaced by placeholders, which no
user can guess. In the rendered text every special token that is left is the template's own.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import tokenizers

from novacron.errors import InvalidRequest


class Quoting:
    """Quotes the special tokens of one tokenizer, and encodes texts that hold quotes.

    `special_ids` maps each of them to its id. `make_tokenizer` builds a tokenizer for quoted texts
    alone, when the first of them comes: hardly anybody ever writes one.
    """

    def __init__(
        self, special_ids: Mapping[str, int], make_tokenizer: Callable[[], tokenizers.Tokenizer]
    ) -> None:
        self._special_ids = special_ids
        self._make_tokenizer = make_tokenizer
        longest_first = sorted(special_ids, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        nonce = secrets.token_hex(8)
        self._quotes = {text: f"quoted{nonce}n{i}n" for i, text in enumerate(longest_first)}
        self._controls = {text: f"control{nonce}n{i}n" for i, text in enumerate(longest_first)}
        self._texts = {quote: text for text, quote in self._quotes.items()}
        self._mark = f"quoted{nonce}"
        self._quote = re.compile(rf"{self._mark}n\d+n")

    def quote(self, value: Any) -> Any:
        """JSON data with the special tokens in its texts quoted."""
        match value:
            case str():
                return self._special.sub(lambda match: self._quotes[match[0]], value)
            case Mapping():
                return {key: self.quote(item) for key, item in value.items()}
            case list() | tuple():
                return [self.quote(item) for item in value]
            case _:
                return value

    def is_quoted(self, text: str) -> bool:
        return self._mark in text

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids: special tokens as such, quoted ones as the text they are written with.

        Raises InvalidRequest if the tokenizer knows no other way to write one of them.
        """
        marked = self._special.sub(lambda match: self._controls[match[0]], text)
        quoted = {self._texts[quote] for quote in self._quote.findall(marked)}
        plain = self._quote.sub(lambda match: self._texts[match[0]], marked)
        tokenizer, id_of_control = self._tokenizer
        encoding = tokenizer.encode(plain, add_special_tokens=add_special_tokens)
        of_text = {
            token_id
            for token_id, is_added in zip(encoding.ids, encoding.special_tokens_mask, strict=True)
            if not is_added
        }
        for special in quoted:
            if self._special_ids[special] in of_text:
                raise InvalidRequest(
                    f"The text holds {special!r}, which this model's tokenizer cannot write in any "
                    "other way than as a special token. Leave it out."
                )
        return [id_of_control.get(token_id, token_id) for token_id in encoding.ids]

    @cached_property
    def _tokenizer(self) -> tuple[tokenizers.Tokenizer, dict[int, int]]:
        """One for which special tokens are text and their stand-ins are tokens; and the special
        tokens' ids by those of the stand-ins."""
        tokenizer = self._make_tokenizer()
        added = tokenizer.get_added_tokens_decoder().items()
        special = {token_id: token for token_id, token in added if token.special}
        stand_ins = [_stand_in(token, self._controls[token.content]) for token in special.values()]
        tokenizer.encode_special_tokens = True
        tokenizer.add_tokens(stand_ins)
        tokens = tokenizer.get_vocab()
        return tokenizer, {
            tokens[stand_in.content]: token_id
            for token_id, stand_in in zip(special, stand_ins, strict=True)
        }


def _stand_in(special: tokenizers.AddedToken, content: str) -> tokenizers.AddedToken:
    """Takes whitespace beside it as the special token does; found before anything is normalised."""
    return tokenizers.AddedToken(
        content, lstrip=special.lstrip, rstrip=special.rstrip, normalized=False
    )
