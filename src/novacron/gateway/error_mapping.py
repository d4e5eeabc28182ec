"""From errors to HTTP: the only place that knows status codes, and OpenAI's error shape.

Every class of errors.py has a row; a subclass without one of its own has its parent's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from novacron import errors
from novacron.gateway.openai.responses import ErrorBody, ErrorDetail, LoadingProgress


@dataclass(frozen=True)
class HttpError:
    """How an error class is told to a client: status, OpenAI's `type` and its `code`."""

    status: int
    type: str
    code: str | None


_INVALID = "invalid_request_error"

HTTP_ERRORS: dict[type[errors.NovaCronError], HttpError] = {
    errors.NovaCronError: HttpError(500, "server_error", None),
    errors.ConfigError: HttpError(500, "server_error", "bad_configuration"),
    errors.InvalidRequest: HttpError(400, _INVALID, None),
    errors.PromptTooLong: HttpError(400, _INVALID, "context_length_exceeded"),
    errors.StreamIdInUse: HttpError(400, _INVALID, None),
    errors.BodyTooLarge: HttpError(413, _INVALID, "body_too_large"),
    errors.ModelNotFound: HttpError(404, _INVALID, "model_not_found"),
    errors.RequestNotFound: HttpError(404, _INVALID, "request_not_found"),
    errors.EventsLost: HttpError(410, _INVALID, "events_lost"),
    errors.StreamMoved: HttpError(503, "service_unavailable_error", "stream_moved"),
    errors.ModelLoadError: HttpError(500, "server_error", "model_load_error"),
    errors.UnsupportedModel: HttpError(500, "server_error", "unsupported_model"),
    errors.Overloaded: HttpError(503, "overloaded_error", "overloaded"),
    errors.NotReady: HttpError(503, "service_unavailable_error", "not_ready"),
    errors.EngineDead: HttpError(503, "service_unavailable_error", "engine_dead"),
    errors.PoisonousRequest: HttpError(422, _INVALID, "poisonous_request"),
    errors.RequestFailed: HttpError(500, "server_error", "request_failed"),
    errors.ReceiveTimeout: HttpError(408, _INVALID, "receive_timeout"),
    errors.Unsupported: HttpError(501, "server_error", "unsupported"),
    errors.Unauthenticated: HttpError(401, _INVALID, "invalid_api_key"),
    errors.IdentityUnavailable: HttpError(503, "service_unavailable_error", "identity_unavailable"),
    errors.OriginNotAllowed: HttpError(403, _INVALID, "origin_not_allowed"),
    errors.HostNotAllowed: HttpError(403, _INVALID, "host_not_allowed"),
    errors.Forbidden: HttpError(403, _INVALID, "forbidden"),
    errors.PermissionDenied: HttpError(403, _INVALID, "permission_denied"),
    errors.ContentBlocked: HttpError(400, _INVALID, "content_policy"),
    errors.GuardianUnavailable: HttpError(503, "service_unavailable_error", "guardian_unavailable"),
    errors.PinLimit: HttpError(409, _INVALID, "pin_limit"),
    errors.PinNotFound: HttpError(404, _INVALID, "pin_not_found"),
    errors.ReplicaNotFound: HttpError(404, _INVALID, "replica_not_found"),
    errors.LastReplica: HttpError(409, _INVALID, "last_replica"),
    errors.QuotaExceeded: HttpError(429, "rate_limit_error", "rate_limit_exceeded"),
    errors.AuditUnavailable: HttpError(503, "service_unavailable_error", "audit_unavailable"),
    errors.DatabaseUnavailable: HttpError(503, "service_unavailable_error", "database_unavailable"),
    errors.AccountNotFound: HttpError(404, _INVALID, "account_not_found"),
    errors.AccountConflict: HttpError(409, _INVALID, "account_conflict"),
}


def http_error(error: errors.NovaCronError) -> HttpError:
    return next(HTTP_ERRORS[cls] for cls in type(error).__mro__ if cls in HTTP_ERRORS)


def error_detail(error: errors.NovaCronError) -> ErrorDetail:
    known = http_error(error)
    param = error.param if isinstance(error, errors.InvalidRequest) else None
    return ErrorDetail(message=str(error), type=known.type, param=param, code=known.code)


def error_body(error: errors.NovaCronError, loading: LoadingProgress | None = None) -> ErrorBody:
    """OpenAI's shape. `loading` tells how far the model is, where that is the reason."""
    if loading is None:
        return ErrorBody(error_detail(error))
    return ErrorBody(error_detail(error), loading)


def error_headers(error: errors.NovaCronError) -> dict[str, str]:
    """Retry-After, in whole seconds as HTTP wants it, where a retry makes sense; what is missing
    (RFC 6750) where a credential is."""
    headers: dict[str, str] = {}
    match error:
        case errors.Unauthenticated(was_sent=False):
            headers = {"www-authenticate": "Bearer"}
        case errors.Unauthenticated():
            headers = {"www-authenticate": 'Bearer error="invalid_token"'}
        case errors.PermissionDenied(permission=scope):
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            headers = {"www-authenticate": challenge}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    return headers


def other_error_body(status: int, message: str, param: str | None = None) -> ErrorBody:
    """OpenAI's shape for what the web framework refuses: no such path, method not allowed."""
    kind = _INVALID if status < 500 else "server_error"
    return ErrorBody(ErrorDetail(message=message, type=kind, param=param, code=None))
