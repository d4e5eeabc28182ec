"""Encrypted blocks, checked by whoever has the key."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from novacron.cli.options import load_settings
from novacron.cli.sealing import KEYS, sealing_at
from novacron.kv_tiers.disk_folder import IsSound
from novacron.kv_tiers.encrypted_tier import purpose_of
from novacron.kv_tiers.tier import Bytes
from novacron.records.block import BlockHash


def opener_of(key: str | None, config_file: Path | None, folder: Path) -> IsSound | None:
    """None without a key. Raises ConfigError if it is a wrong one."""
    source = load_settings({"encryption_key": key}, file=config_file).engine.cache.encryption_key
    if not source:
        return None

    from novacron.encryption.key_places import FolderPlace

    sealing = sealing_at(FolderPlace(folder / KEYS), source)

    def is_sound(record: Bytes, identity: bytes, key: BlockHash) -> bool:
        block = np.empty(len(record) - sealing.overhead_bytes, np.uint8)
        try:
            return sealing.open_into(record.data, purpose_of(key), block.data)
        except LookupError:
            return False

    return is_sound
