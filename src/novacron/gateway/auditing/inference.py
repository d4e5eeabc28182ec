"""Records of inference: one for each call that reached the model or the response cache."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from novacron.audit.log import AuditLog
from novacron.audit.record import AuditRecord
from novacron.errors import NovaCronError
from novacron.gateway.auditing.access import now
from novacron.gateway.calls import Call, Generate
from novacron.gateway.error_mapping import http_error
from novacron.gateway.metering import CallCount
from novacron.gateway.middleware import audited_id
from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason

_OK: Final = 200
_CLIENT_GONE: Final = 499
_REFUSED: Final = (401, 403, 429)


def recorded(generate: Generate, log: AuditLog) -> Generate:
    """`generate`, whose calls leave a record when they end, however they do. They never wait for
    it, and go on when it cannot be written."""

    async def run(call: Call) -> AsyncGenerator[RequestOutput, None]:
        count = CallCount(call)
        outcome, status = "aborted", _CLIENT_GONE
        try:
            async with aclosing(generate(call)) as outputs:
                async for output in outputs:
                    count.see(output)
                    if count.num_open == 0:
                        outcome, status = _end(output)
                    yield output
            outcome, status = ("ok", _OK) if status == _CLIENT_GONE else (outcome, status)
        except NovaCronError as error:
            status = http_error(error).status
            outcome = "refused" if status in _REFUSED else "failed"
            raise
        finally:
            log.note(_record(call, count, outcome, status))

    return run


def _end(last: RequestOutput) -> tuple[str, int]:
    if last.finish_reason is FinishReason.ABORT:
        return "aborted", _OK
    if last.finish_reason is FinishReason.ERROR:
        return "failed", 500
    return "ok", _OK


def _record(call: Call, count: CallCount, outcome: str, status: int) -> AuditRecord:
    origin = call.origin
    access = origin.access
    usage = count.usage()
    return AuditRecord(
        time=now(),
        kind="inference",
        tenant=access.tenant if access else "",
        user=access.user if access else "",
        key_id=access.key_id if access else "",
        method=access.method if access else "",
        route=access.route if access else "",
        status=status,
        request_id=audited_id(origin.request_id, access.made_id if access else ""),
        model=origin.model,
        prompt_tokens=call.num_prompt_tokens,
        cached_tokens=usage.cached_tokens if usage else 0,
        output_tokens=usage.output_tokens if usage else 0,
        outcome=outcome,
    )
