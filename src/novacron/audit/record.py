"""What one record of the audit log says. Never a prompt, an answer, a token or the text of a key:
there is no field for them.
"""

from __future__ import annotations

import secrets
from typing import Final, Literal

import msgspec

Kind = Literal["admin", "inference", "refused", "start", "purge", "lost"]

KEPT: Final = ("start", "purge", "lost")  # kinds about the log itself, which no purge removes
_NONCE_BYTES: Final = 16


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who did what, when, and how it ended. What is empty or 0 is not written.

    `kind`: `admin`, `inference`, `refused` (401 and 403); and of the log itself: `start` of a file,
    `purge`, `lost` (records that could not be written).

    `outcome`: `begun` (an administrative change, before it is made), `ok`, `refused`, `failed`,
    `aborted` (the client went away).
    """

    time: float  # Unix seconds, to the millisecond
    kind: Kind
    tenant: str = ""
    user: str = ""
    key_id: str = ""
    method: str = ""
    route: str = ""  # the template, such as /api/v1/llm/admin/keys/{id}
    target: str = ""  # what stood in the template's place, where that exists
    status: int = 0
    request_id: str = ""
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    outcome: str = ""
    # of kind start: what follows the last whole record of the file before
    torn_bytes: int = 0
    torn_sha256: str = ""
    # of kind purge: whose records were taken out, from which file, up to when
    purged_tenant: str = ""
    purged_before: float = 0.0
    purged_file: str = ""
    purged: str = ""  # sequence numbers: 3-7,12
    count: int = 0  # of kind lost; of refused: how many that have no record of their own
    # Random, so that the digest which a purge leaves tells nothing about what was there.
    nonce: str = ""


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(AuditRecord)


def encode_record(record: AuditRecord) -> bytes:
    """In one line, with a nonce of its own. Half surrogate pairs, which names in tokens may have,
    become question marks."""
    whole = msgspec.structs.replace(record, nonce=secrets.token_hex(_NONCE_BYTES))
    try:
        return _encoder.encode(whole)
    except UnicodeEncodeError:
        texts = {name: text for name, text in msgspec.structs.asdict(whole).items()
                 if isinstance(text, str)}  # fmt: skip
        sound = {name: text.encode(errors="replace").decode() for name, text in texts.items()}
        return _encoder.encode(msgspec.structs.replace(whole, **sound))


def decode_record(body: bytes) -> AuditRecord:
    """Raises ValueError (msgspec's errors are) for anything else than a record."""
    return _decoder.decode(body)
