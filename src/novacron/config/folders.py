"""Where files of ours lie."""

from __future__ import annotations

from pathlib import Path

from novacron.config.cache import CacheConfig
from novacron.config.cluster import ClusterConfig
from novacron.config.model import ModelConfig
from novacron.config.server import ServerConfig

_DEFAULT_CACHE = Path("~/.cache")
_DEFAULT_STATE = Path("~/.local/state")


def cache_folder(model: ModelConfig) -> Path:
    """What can be made again is kept below this."""
    base = Path(model.cache_dir) if model.cache_dir else _DEFAULT_CACHE.expanduser()
    return base / "novacron"


def kv_folder(model: ModelConfig, cache: CacheConfig) -> Path:
    """KV blocks on disk."""
    if cache.kv_disk_path:
        return Path(cache.kv_disk_path).expanduser()
    return cache_folder(model) / "kv"


def state_folder(server: ServerConfig) -> Path:
    """What cannot be made again is kept below this."""
    base = Path(server.state_dir) if server.state_dir else _DEFAULT_STATE
    return base.expanduser() / "novacron"


def audit_folder(server: ServerConfig, *, is_wanted: bool = True) -> Path | None:
    """Of the audit log, if there is one. `is_wanted`: whether `auto` means that there is."""
    if server.audit_log == "off" or (server.audit_log == "auto" and not is_wanted):
        return None
    if server.audit_log == "auto":
        return state_folder(server) / "audit"
    return Path(server.audit_log).expanduser()


def prompt_folder(server: ServerConfig) -> Path:
    """Prompts and answers of tenants that want them kept, encrypted."""
    return state_folder(server) / "prompts"


def database_url(server: ServerConfig) -> str:
    """Where accounts are, or would be."""
    return server.database or f"sqlite:///{state_folder(server) / 'accounts.db'}"


def has_database(server: ServerConfig) -> bool:
    """Whether accounts are wanted: a database was named, or is there."""
    return bool(server.database) or (state_folder(server) / "accounts.db").exists()


def keeps_streams(cluster: ClusterConfig, server: ServerConfig) -> bool:
    """Whether streams are put on record, where there is a database."""
    wanted = cluster.stream_journal
    return wanted == "on" or (wanted == "auto" and database_url(server).startswith("postgres"))
