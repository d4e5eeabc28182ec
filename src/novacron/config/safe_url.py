"""Addresses that secrets may be sent to, and keys come from."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_safe_url(url: str) -> bool:
    """Whether what comes from `url` is what its owner sends: https, or within this machine."""
    try:
        parsed = urlsplit(url)
        host = parsed.hostname or ""
    except ValueError:
        return False
    if parsed.username or parsed.password or parsed.fragment or not host:
        return False
    return parsed.scheme == "https" or (parsed.scheme == "http" and _is_this_machine(host))


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
