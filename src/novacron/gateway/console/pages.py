"""The files of the console, and how they are sent. Pure but for reading them.

They are served as they lie here: no build, nothing from elsewhere. Pages hold nothing secret; what
they show they ask the API for, with the key that their user gives them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_INLINE: Final = re.compile(rb'<script type="importmap">(.*?)</script>', re.DOTALL)

FILES: Final[Mapping[str, Path]] = {
    "/": _FOLDER / "index.html",
    **{
        f"/console/{file.relative_to(_FOLDER).as_posix()}": file
        for file in sorted(_FOLDER.rglob("*"))
        if file.suffix in _TYPES and file.suffix != ".html"
    },
}


def headers_of(file: Path, content: bytes) -> dict[str, str]:
    """With `content`, the headers of its answer. Browsers run nothing that is not one of our files:
    the one script in the page, its map of imports, is named by its digest."""
    scripts = "".join(f" 'sha256-{_digest(script)}'" for script in _INLINE.findall(content))
    policy = (
        f"default-src 'none'; script-src 'self'{scripts}; style-src 'self'; "
        "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return {
        "content-type": _TYPES[file.suffix],
        "cache-control": "no-cache",  # asked for again, and not sent again while it is the same
        "etag": f'"{_digest(content)}"',
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }


def _digest(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()
