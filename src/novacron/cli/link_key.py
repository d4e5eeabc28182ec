"""Where this user keeps the key of links, unless told otherwise."""

from __future__ import annotations

from novacron.engine.link.keys import link_key_file

__all__ = ["link_key_file"]
