"""Settings of the API process."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from novacron.config.key_shares import KeyShare, parse_key_shares
from novacron.config.privacy import check_region
from novacron.config.response_cache import check_response_cache_url, parse_thresholds
from novacron.config.setting import require, setting

_HOST_NAME = re.compile(r"(\*\.)?[^*:/\s]+")


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Where and how the API listens, and what it does under stress and at the end."""

    host: str = setting("127.0.0.1", "address to listen on")
    port: int = setting(8080, "port to listen on; 0: any free one, printed at start")
    api_key: tuple[str, ...] = setting(
        (), "keys that clients must send as a bearer token; none: open", secret=True
    )
    api_key_shares: tuple[str, ...] = setting(
        (),
        "for each of several keys, in their order, its share of the engine as WEIGHT or "
        "WEIGHT:PRIORITY, such as 1,2,4:high,1:low; a priority is that of requests which ask for "
        "none, and the most urgent they may ask for; those left out: 1:normal",
    )
    tls_cert: str = setting(
        "",
        "file with the certificate (and those between it and its root) that makes this server "
        "speak https; read again when it changes; empty: http",
        flags=("--ssl-certfile",),
    )
    tls_key: str = setting(
        "",
        "file with the private key of tls_cert; empty: it is in that file",
        flags=("--ssl-keyfile",),
    )
    tls_client_ca: str = setting(
        "",
        "file with roots of the certificates that clients must show; empty: they need none",
        flags=("--ssl-ca-certs",),
    )
    cors_allow_origins: tuple[str, ...] = setting(
        (), "origins whose pages may call the API; none by default"
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        "names that clients may call this server by, such as llm.example.org or *.example.org, "
        "beside addresses and localhost; empty: any, except on loopback without a key",
    )
    state_dir: str = setting(
        "",
        "folder for what cannot be made again, below novacron/ in it: accounts, and the first key "
        "of a server that others can reach; empty: ~/.local/state",
    )
    database: str = setting(
        "",
        "accounts, quotas and usage: sqlite:///FILE, or for several API processes "
        "postgresql://USER:PASSWORD@HOST/NAME; empty: accounts.db in state_dir, once "
        "novacron admin has made it",
        secret=True,
    )
    audit_log: str = setting(
        "auto",
        "folder of the audit log of administration, refused requests and inference; auto: audit in "
        "state_dir, of servers that ask who calls or that others can reach; off: none",
    )
    audit_inference: bool = setting(
        True, "record each call in the audit log, too: who, when, tokens; never what was said"
    )
    max_connections: int = setting(2048, "most open connections; more are refused with 503")
    receive_timeout: float = setting(
        60.0, "a request, headers and body, must have arrived within so long", unit="s"
    )
    keep_alive_timeout: float = setting(
        75.0,
        "close a connection after so long without a request, a WebSocket after so long without an "
        "answer to a ping; longer than load balancers keep theirs",
        unit="s",
    )
    shutdown_timeout: float = setting(
        30.0, "after SIGTERM, finish running requests for so long before ending them", unit="s"
    )
    recovery_timeout: float = setting(
        300.0,
        "requests whose engine has died, and new ones, wait so long for it to restart before they "
        "fail; 0: they fail at once",
        unit="s",
    )
    heartbeat_timeout: float = setting(
        30.0,
        "an engine that shows no sign of life for so long is killed and started again; 0: never",
        unit="s",
    )
    step_timeout: float = setting(
        600.0, "the same for an engine that takes so long for one step; 0: never", unit="s"
    )
    canary_interval: float = setting(
        30.0,
        "an idle engine gets a small request this often, whose answer is known; one that gives "
        "another, or none, is started again; 0: never",
        unit="s",
    )
    canary_timeout: float = setting(
        20.0, "an idle engine has so long for that, or ten times what the first one took", unit="s"
    )
    keep_alive_interval: float = setting(
        15.0, "send a comment on a silent stream this often", unit="s"
    )
    stream_flush_interval: float = setting(
        0.025,
        "tokens of many streams of a fast model wait up to so long and travel together; 0: never",
        unit="s",
    )
    response_cache: Literal["off", "exact", "semantic"] = setting(
        "off",
        "answer requests that were answered before without computing: exact: those that are equal "
        "in everything, if greedy or with a seed; semantic: also questions of the same meaning, of "
        "requests that ask for it; see docs/response-cache.md",
    )
    response_cache_threshold: float = setting(
        0.5, "least cosine of two questions of the same meaning, before their words are compared"
    )
    response_cache_thresholds: tuple[str, ...] = setting(
        (), "the same for single routes, such as /v1/messages=0.9"
    )
    response_cache_embedding: Literal["engine", "hash"] = setting(
        "hash",
        "what makes vectors of questions: the served model, or a hash of words and letters, "
        "which takes no time of the engine",
    )
    response_cache_url: str = setting(
        "",
        "where answers are kept: sqlite:///path/of/file, redis://host:6379/0 (rediss://, unix://); "
        "empty: the memory of this process",
        secret=True,
    )
    response_cache_region: str = setting(
        "", "where that is; answers to tenants that may not be there are not put there"
    )
    response_cache_size: int = setting(
        256 * 2**20, "most bytes of answers in memory or in the file", unit="bytes"
    )
    response_cache_ttl: float = setting(
        3600.0, "an answer is kept for so long; hits do not extend it", unit="s"
    )
    max_body_bytes: int = setting(16 * 2**20, "largest request body accepted", unit="bytes")
    replay_buffer_bytes: int = setting(
        64 * 2**20,
        "memory for events of streams that clients may attach to or resume",
        unit="bytes",
    )
    replay_seconds: float = setting(
        300.0, "how long a finished stream can still be fetched", unit="s"
    )
    quality_score: float | None = setting(
        None,
        "result of the model's last offline evaluation, 0 to 1, for the metrics; empty: none told",
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "least severe message logged"
    )
    log_format: Literal["auto", "text", "json"] = setting(
        "auto", "auto: text on a terminal, else json"
    )
    access_log: bool = setting(False, "log each HTTP request (never its content)")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    @cached_property
    def key_shares(self) -> tuple[KeyShare, ...]:
        """Those of the first keys. Raises ConfigError."""
        return parse_key_shares(self.api_key_shares)

    def __post_init__(self) -> None:
        require(0 <= self.port < 65536, "port", self.port, "give a number from 0 to 65535")
        for key in (
            "shutdown_timeout", "recovery_timeout", "heartbeat_timeout", "step_timeout",
            "replay_seconds", "stream_flush_interval", "canary_interval",
        ):  # fmt: skip
            require(getattr(self, key) >= 0, key, getattr(self, key), "give 0 or more seconds")
        require(
            self.quality_score is None or 0 <= self.quality_score <= 1,
            "quality_score", self.quality_score, "give a number from 0 to 1",
        )  # fmt: skip
        require(self.max_connections > 0, "max_connections", self.max_connections, "give 1 or more")
        for key in (
            "receive_timeout", "keep_alive_timeout", "keep_alive_interval", "canary_timeout",
        ):  # fmt: skip
            require(
                getattr(self, key) > 0, key, getattr(self, key), "give a positive number of seconds"
            )
        require(
            len(self.key_shares) <= len(self.api_key), "api_key_shares", self.api_key_shares,
            f"there are {len(self.api_key)} keys (api_key), give no more shares",
        )  # fmt: skip
        for key in ("tls_key", "tls_client_ca"):
            require(
                bool(self.tls_cert) or not getattr(self, key), key, getattr(self, key),
                "it needs tls_cert beside it",
            )  # fmt: skip
        require(bool(self.audit_log), "audit_log", "", "give a folder, auto or off")
        for name in self.allowed_hosts:
            require(
                name == "*" or _HOST_NAME.fullmatch(name) is not None, "allowed_hosts", name,
                "give names without a port, such as llm.example.org or *.example.org, or * for any",
            )  # fmt: skip
        check_response_cache_url(self.response_cache_url)
        check_region("response_cache_region", self.response_cache_region)
        require(
            -1 <= self.response_cache_threshold <= 1, "response_cache_threshold",
            self.response_cache_threshold, "give a number from -1 to 1",
        )  # fmt: skip
        parse_thresholds(self.response_cache_thresholds)
        require(
            self.response_cache_ttl > 0, "response_cache_ttl", self.response_cache_ttl,
            "give a positive duration such as 1h",
        )  # fmt: skip
        for key in ("max_body_bytes", "replay_buffer_bytes", "response_cache_size"):
            require(
                getattr(self, key) > 0, key, getattr(self, key), "give a positive size such as 16Mi"
            )
