"""Keys and passwords that programs use: by the form that those who give them out have chosen."""

from __future__ import annotations

import re
from typing import Final

from novacron.guardians.patterns import (
    Pattern,
    chars,
    either,
    maybe,
    not_before,
    seq,
    text,
    times,
    words,
)
from novacron.guardians.scanning import Entity

VERSION: Final = "1"

_WORD: Final = "A-Za-z0-9"
_URL_SAFE: Final = "A-Za-z0-9_\\-"
_VALUE: Final = re.compile(r"[:=]\s*[\"'`]?([^\"'`]*)$")


def _token(*prefixes: str, members: str = _WORD, least: int, most: int) -> Pattern:
    """One of `prefixes`, then so many characters; a longer run is found as far as it goes."""
    first = either(*(text(prefix, after=_WORD) for prefix in prefixes))
    return seq(first, times(chars(members), least, most))


def _is_random(candidate: str) -> int:
    """Keys have digits and letters; a word with dashes does not."""
    body = candidate[3:]
    is_mixed = any(c.isdigit() for c in body) and any(c.isalpha() for c in body)
    return len(candidate) if is_mixed else 0


def _is_password(candidate: str) -> int:
    """Something that was chosen: not stars, a placeholder or a plain word."""
    found = _VALUE.search(candidate)
    value = found[1] if found else ""
    kinds = (str.islower, str.isupper, str.isdigit, lambda char: not char.isalnum())
    is_mixed = sum(any(map(kind, value)) for kind in kinds) >= 2 and len(set(value)) >= 5
    is_placeholder = value[:1] in "<[{$*(" or not any(map(str.isalnum, value))
    has_digit = any(map(str.isdigit, value))
    return len(candidate) if is_mixed and has_digit and not is_placeholder else 0


_PEM_KIND: Final = either(*map(text, ("RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ", "PGP ")))
_PRIVATE_KEY: Final = seq(
    text("-----BEGIN "),
    maybe(_PEM_KIND),
    text("PRIVATE KEY"),
    maybe(text(" BLOCK")),
    text("-----"),
    times(chars("A-Za-z0-9+/=\\r\\n\\\\"), 0, 4096),
    maybe(seq(text("-----END "), maybe(_PEM_KIND), text("PRIVATE KEY"), maybe(text(" BLOCK")),
              text("-----"))),
)  # fmt: skip
_JWT_PART: Final = times(chars(_URL_SAFE), 8, 1024)
_JWT: Final = seq(
    text("eyJ", after=_URL_SAFE), _JWT_PART, text(".eyJ"), _JWT_PART, text("."), _JWT_PART
)
_ASSIGNED: Final = seq(
    words(
        "password", "passwd", "pwd", "passphrase", "secret", "secret key", "api key", "apikey",
        "access key", "access token", "auth token", "client secret", "token", after=_WORD,
    ),
    maybe(chars("\"'`")),
    times(chars(r"\s"), 0, 3),
    chars(":="),
    times(chars(r"\s"), 0, 3),
    maybe(chars("\"'`")),
    times(chars("^\\s\"'`"), 8, 128),
)  # fmt: skip
_IN_URL: Final = seq(
    text("://"),
    times(chars("^\\s/:@\"'"), 1, 64),
    text(":"),
    times(chars("^\\s/:@\"'"), 3, 128),
    text("@"),
    times(chars("A-Za-z0-9.\\-"), 1, 64),
)

CREDENTIALS: Final = (
    Entity(
        "AWS_KEY",
        seq(_token("AKIA", "ASIA", members="A-Z0-9", least=16, most=16), not_before(_WORD)),
    ),
    Entity("GITHUB_TOKEN", _token("ghp_", "gho_", "ghu_", "ghs_", "ghr_", least=36, most=100)),
    Entity("GITHUB_TOKEN", _token("github_pat_", members="A-Za-z0-9_", least=22, most=120)),
    Entity("API_KEY", _token("sk-", members=_URL_SAFE, least=20, most=200), _is_random),
    Entity(
        "API_KEY",
        _token("sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_", least=16, most=120),
    ),
    Entity("API_KEY", _token("AIza", members=_URL_SAFE, least=35, most=35)),
    Entity("API_KEY", _token("hf_", least=30, most=60)),
    Entity(
        "SLACK_TOKEN",
        _token(
            "xoxb-", "xoxa-", "xoxp-", "xoxr-", "xoxs-", members="A-Za-z0-9\\-", least=10, most=90
        ),
        _is_random,
    ),
    Entity("JWT", _JWT),
    Entity("PRIVATE_KEY", _PRIVATE_KEY),
    Entity("PASSWORD", _ASSIGNED, _is_password, ignore_case=True, needs=(":", "=")),
    Entity("PASSWORD", _IN_URL, needs=("@",)),
)  # fmt: skip
