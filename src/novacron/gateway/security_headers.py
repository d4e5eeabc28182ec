"""Headers that keep browsers from doing more with an answer than reading it."""

from __future__ import annotations

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),  # text that a model wrote is never taken for a page
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    # What is no page needs nothing. The pages of /docs bring their scripts from elsewhere.
    (b"content-security-policy", b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"cache-control", b"no-store"),
)
_HTTPS = (b"strict-transport-security", b"max-age=31536000")


def security_headers(*, https: bool) -> tuple[tuple[bytes, bytes], ...]:
    """For every answer, unless the answer has one of the name itself."""
    return (*_ALWAYS, _HTTPS) if https else _ALWAYS
