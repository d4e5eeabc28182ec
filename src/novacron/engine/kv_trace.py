"""KVTrace: which requests came when and which blocks they were made of, into a file for
`novacron cache simulate --trace` and `tune`. No text, and nothing that text could be found by.

Blocks, sessions and scopes are digests under a key that was drawn at the start and is kept nowhere:
whoever has the file can tell that two requests began alike, but not with what, and two files
cannot be compared.
"""

from __future__ import annotations

import logging
import os
import secrets
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import blake3

from novacron.cache_simulator.trace import TraceRequest, encode_head, encode_request
from novacron.errors import ConfigError
from novacron.records.block import BlockHash
from novacron.scheduler.request_state import RequestState

logger = logging.getLogger(__name__)

_MOST_BYTES: Final = 2**30
_MOST_FILES: Final = 1000


class KVTrace:
    """Writes to `path`, or where that exists to `path` with .1, .2 and so on; a GiB at most. Each
    line is there as soon as its request has ended. Raises ConfigError if no file can be made."""

    def __init__(self, path: Path, block_tokens: int, most_bytes: int = _MOST_BYTES) -> None:
        self._block_tokens = block_tokens
        self._left_bytes = most_bytes
        self._key = secrets.token_bytes(32)
        self._began_s: float | None = None
        self.path, self._fd = _create(path)
        self.close = weakref.finalize(self, os.close, self._fd)  # at the latest with the engine
        self._write(encode_head(block_tokens))

    def see_end(self, state: RequestState) -> None:
        """A request has ended, however it did."""
        if self._left_bytes <= 0 or not state.blocks.hashes:
            return
        request = state.request
        if self._began_s is None:
            self._began_s = request.arrival_time_s
        line = TraceRequest(
            request.arrival_time_s - self._began_s,
            state.num_prompt_tokens,
            state.num_output_tokens,
            self._numbers(state.blocks.hashes),
            min(len(state.blocks.hashes), state.num_prompt_tokens // self._block_tokens),
            self._name(request.session),
            self._name(request.cache_scope),
        )
        self._write(encode_request(line))

    def _numbers(self, keys: Sequence[BlockHash]) -> tuple[BlockHash, ...]:
        """Digests of 63 bits, so that any reader of JSON can hold the number."""
        digests = (blake3.blake3(key, key=self._key).digest(8) for key in keys)
        return tuple(BlockHash(bytes((one[0] & 0x7F,)) + one[1:]) for one in digests)

    def _name(self, tag: bytes) -> bytes:
        """Empty for none."""
        return blake3.blake3(tag, key=self._key).hexdigest(6).encode() if tag else b""

    def _write(self, line: bytes) -> None:
        self._left_bytes -= len(line) + 1
        try:
            os.write(self._fd, line + b"\n")
        except OSError as error:
            self._left_bytes = 0
            logger.warning("The trace %s ends here: %s.", self.path, error.strerror or error)
        else:
            if self._left_bytes <= 0:
                logger.warning("The trace %s is as large as may be, and ends here.", self.path)


def _create(path: Path) -> tuple[Path, int]:
    for number in range(_MOST_FILES):
        free = path.with_name(f"{path.name}.{number}") if number else path
        try:
            return free, os.open(free, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(
                f"kv_trace is '{path}', which cannot be written: {error.strerror or error}. "
                "Name a file in a folder that exists."
            ) from None
    raise ConfigError(f"kv_trace: there are {_MOST_FILES} files beside {path}; remove some.")
