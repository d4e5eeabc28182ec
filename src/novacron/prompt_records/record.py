"""What is kept of a call of a tenant that wants it kept."""

from __future__ import annotations

import msgspec


class PromptRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The prompt as the model got it, of each of the call's prompts, and the answers as the client
    got them. `outcome`: ok, failed, or aborted (the client went away, or it was cancelled)."""

    time: float  # Unix seconds, when it ended
    tenant: str
    user: str = ""
    key_id: str = ""
    request_id: str
    call_id: str
    model: str
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    outcome: str = "ok"
