"""Every error a caller of NovaCron can meet, in one tree.

    NovaCronError
      ConfigError             a setting is wrong                              not retryable
      InvalidRequest          the client must change the request              not retryable
        PromptTooLong
        BodyTooLarge
        StreamIdInUse
      ModelNotFound           no such model is served                         not retryable
      RequestNotFound         no such request is known (any more)             not retryable
      EventsLost              events of a stream are not kept any more        not retryable
      StreamMoved             another coordinator goes on with the stream     retryable
      ModelLoadError          files of a model cannot be served               not retryable
        UnsupportedModel
      Overloaded              the queue is full                               retryable
      NotReady                loading, draining or restarting                 retryable
      EngineDead              the engine process ended under the request      retryable
      PoisonousRequest        engines end whenever they compute this request  not retryable
      RequestFailed           the engine could not compute this request       retryable
      ReceiveTimeout          the client took too long to send its request    not retryable
      Unsupported             this version cannot do what is asked            not retryable
      Unauthenticated         no valid key or token was sent                  not retryable
      IdentityUnavailable     it cannot be found out now whose a token is     retryable
      OriginNotAllowed        a web page of another origin is calling         not retryable
      HostNotAllowed          the server was called by an unknown name        not retryable
      Forbidden               the key does not allow this                     not retryable
        PermissionDenied
      ContentBlocked          a guardian refuses the text                     not retryable
      GuardianUnavailable     a guardian that must judge could not            retryable
      PinLimit                more would be pinned than may be                not retryable
      PinNotFound             nothing is pinned under this name               not retryable
      ReplicaNotFound         no replica of this server has this id           not retryable
      LastReplica             without this replica nobody would serve         not retryable
      QuotaExceeded           a quota or rate limit is used up for now        retryable
      DatabaseUnavailable     accounts cannot be read or charged now          retryable
      AuditUnavailable        the audit log cannot be written now             retryable
      AccountNotFound         no tenant, user, key or role has this id        not retryable
      AccountConflict         the id is taken, or others depend on it         not retryable

The message says what happened, why, and what to do. HTTP codes live in gateway/error_mapping.py.
"""

from __future__ import annotations


class NovaCronError(Exception):
    """Base of all errors that users, disks or peers can cause."""

    retryable: bool = False
    retry_after_s: float | None = None


class ConfigError(NovaCronError):
    """A setting is wrong. The message names the key, the value and a remedy."""


class InvalidRequest(NovaCronError):
    """The client must change the request. `param` is the name of the offending field, if one is."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class PromptTooLong(InvalidRequest):
    """The prompt (with the tokens asked for) does not fit into the context of the model."""

    def __init__(self, num_prompt_tokens: int, max_tokens: int | None, max_model_len: int) -> None:
        asked = "" if max_tokens is None else f" and max_tokens is {max_tokens}"
        super().__init__(
            f"The prompt has {num_prompt_tokens} tokens{asked}, but the model's context holds "
            f"{max_model_len} tokens. Shorten the prompt or ask for fewer tokens.",
            param="prompt" if max_tokens is None else "max_tokens",
        )
        self.num_prompt_tokens = num_prompt_tokens
        self.max_model_len = max_model_len


class BodyTooLarge(InvalidRequest):
    """The body of an HTTP request is larger than the server accepts."""

    def __init__(self, max_body_bytes: int) -> None:
        super().__init__(
            f"The request body is larger than {max_body_bytes} bytes, the most accepted here. "
            "Send less, or raise max_body_bytes."
        )
        self.max_body_bytes = max_body_bytes


class ModelNotFound(NovaCronError):
    """No model of this name is served here."""

    def __init__(self, name: str, served: tuple[str, ...]) -> None:
        super().__init__(f"The model '{name}' is not served here. Served: {', '.join(served)}.")
        self.name = name


class RequestNotFound(NovaCronError):
    """No request of this id is known: it never was, or it ended too long ago."""


class EventsLost(NovaCronError):
    """A reader of a stream asks for events that are not kept any more: it came, or read, too late.

    `first_kept` is the number of the oldest event that can still be had.
    """

    def __init__(self, wanted: int, first_kept: int) -> None:
        super().__init__(
            f"Events {wanted} to {first_kept - 1} of this stream are not kept any more. Read from "
            f"{first_kept} on, read faster, or raise replay_buffer_bytes."
        )
        self.first_kept = first_kept


class StreamIdInUse(InvalidRequest):
    """A call of this id has a stream that can still be read, here or elsewhere."""

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"request_id '{request_id}' is in use: its stream can still be read. Choose another, "
            "or leave it out.",
            param="request_id",
        )
        self.request_id = request_id


class StreamMoved(NovaCronError):
    """This coordinator does not go on with a stream; whoever attaches again finds who does."""

    retryable = True
    retry_after_s = 1.0

    def __init__(self) -> None:
        super().__init__(
            "Another coordinator goes on with this stream. Attach again, after the last event that "
            "was read."
        )


class ModelLoadError(NovaCronError):
    """The files of a model cannot be served. The message names the file and the reason."""


class UnsupportedModel(ModelLoadError):
    """The architecture is not one of those we implement. The message lists them."""


class Overloaded(NovaCronError):
    """The queue is full; the same request may succeed later."""

    retryable = True

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(NovaCronError):
    """The engine is loading, draining or restarting; the same request may succeed later."""

    retryable = True

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EngineDead(NovaCronError):
    """The engine process ended while it worked on the request.

    `has_run`: not False unless it is known that the request never got there. `was_killed`: from
    outside, as far as the exit code tells; it did not crash by itself. `has_lost_a_rank`: on
    another host, which may have crashed or been cut off; the next engine hears from there which.
    """

    retryable = True
    retry_after_s = 1.0
    has_run = True
    was_killed = False
    was_cut_off = False
    has_lost_a_rank = False

    def __init__(
        self,
        message: str,
        *,
        has_run: bool = True,
        was_killed: bool = False,
        was_cut_off: bool = False,
        has_lost_a_rank: bool = False,
    ) -> None:
        super().__init__(message)
        self.has_lost_a_rank = has_lost_a_rank
        self.has_run = has_run
        self.was_killed = was_killed
        self.was_cut_off = was_cut_off


class PoisonousRequest(NovaCronError):
    """Engine processes end whenever they compute this request: it was the only one they had."""

    def __init__(self) -> None:
        super().__init__(
            "The engine process ended each time that it computed this request, at the same place, "
            "with nothing else to do. Others go on without it. Sent again, it would do the same: "
            "the server's log says how the engine ended."
        )


class RequestFailed(NovaCronError):
    """The engine could not compute this request; its neighbours are not affected."""

    retryable = True


class ReceiveTimeout(NovaCronError):
    """The client took too long to send its request."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(
            f"The request did not arrive within {timeout_s:g} s. Send it faster, or raise "
            "receive_timeout."
        )


class Unsupported(NovaCronError):
    """What is asked has a meaning, but this version cannot do it."""


class Unauthenticated(NovaCronError):
    """No valid API key or token was sent. `was_sent`: there was one, but it is not valid."""

    def __init__(self, message: str, *, was_sent: bool = False) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class IdentityUnavailable(NovaCronError):
    """Whose a token is cannot be found out now, because who would know it does not answer."""

    retryable = True
    retry_after_s = 1.0


class OriginNotAllowed(NovaCronError):
    """A browser calls for a web page that is not ours, and this server asks for no key."""

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"A web page of the origin '{origin[:200]}' may not call this server. Name the origin "
            "in cors_allow_origins, or set an API key."
        )


class HostNotAllowed(NovaCronError):
    """The Host of a request is a name that this server does not go by, and it asks for no key."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"This server does not go by the name '{host[:200]}'. Call it by its address or as "
            "localhost, or name the host in allowed_hosts (--allowed-hosts)."
        )


class Forbidden(NovaCronError):
    """The caller is known, and may not do this. The message says who may."""


class PermissionDenied(Forbidden):
    """The caller is known, and its roles do not have the permission that the route demands."""

    def __init__(self, permission: str, roles: tuple[str, ...]) -> None:
        held = f"the roles {', '.join(roles)} do not have" if roles else "no role gives"
        super().__init__(
            f"The permission {permission} is needed, which {held} or the key's scopes leave out. "
            "Use another key, or ask whoever administers this server."
        )
        self.permission = permission


class ContentBlocked(NovaCronError):
    """A guardian refuses a text. `guardian` is its name, `reason` a short code of its own."""

    def __init__(self, guardian: str, reason: str) -> None:
        why = f" ({reason})" if reason else ""
        super().__init__(
            f"The guardian '{guardian}' of this server does not let this text pass{why}. Change "
            "the request; sent again as it is, it would be refused again."
        )
        self.guardian = guardian
        self.reason = reason


class GuardianUnavailable(NovaCronError):
    """A guardian whose verdict is needed did not come to one: it failed, or took too long."""

    retryable = True
    retry_after_s = 1.0

    def __init__(self, guardian: str, reason: str) -> None:
        super().__init__(
            f"The guardian '{guardian}' could not judge this text ({reason}), and without its "
            "verdict nothing passes. The request can be sent again."
        )
        self.guardian = guardian


class PinLimit(NovaCronError):
    """Pinning this would take more of the KV tiers than pins may. The message has both numbers."""


class PinNotFound(NovaCronError):
    """Nothing is pinned under this name by this caller."""


class ReplicaNotFound(NovaCronError):
    """No replica of this server has this id. The message lists those that there are."""

    def __init__(self, replica_id: str, known: tuple[str, ...]) -> None:
        super().__init__(f"There is no replica '{replica_id}'. There are {', '.join(known)}.")


class LastReplica(NovaCronError):
    """Taking this replica out would leave nobody to serve. The message says how to insist."""


class QuotaExceeded(NovaCronError):
    """A quota or rate limit of the caller has no room for this call until `retry_after_s`.

    `rate_limits` tell where the caller stands, as accounts/standing.py words it. `subject` is whose
    quota it is, as `kind:id`.
    """

    retryable = True

    def __init__(
        self,
        message: str,
        retry_after_s: float,
        rate_limits: dict[str, str] | None = None,
        subject: str = "",
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.rate_limits = rate_limits or {}
        self.subject = subject


class DatabaseUnavailable(NovaCronError):
    """The database of accounts cannot be used now, and nothing is let through uncounted."""

    retryable = True
    retry_after_s = 1.0


class AuditUnavailable(NovaCronError):
    """The audit log cannot be written now, and nothing is administered unseen."""

    retryable = True
    retry_after_s = 1.0

    def __init__(self) -> None:
        super().__init__(
            "The audit log cannot be written (is its disk full?), and nothing is administered "
            "without a record. Make room, and try again."
        )


class AccountNotFound(NovaCronError):
    """There is no tenant, user, key or role of this id."""

    def __init__(self, what: str, id: str) -> None:
        super().__init__(f"There is no {what} '{id}'.")


class AccountConflict(NovaCronError):
    """The id is taken already, or others depend on what is to go. The message says which."""
