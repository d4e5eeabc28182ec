from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from novacron.errors import ConfigError
from novacron.gateway.identity.first_key import FILE_NAME, FirstKeyDirectory, first_key
from novacron.gateway.identity.key_hash import hash_key, is_key_of
from novacron.gateway.identity.permissions import BUILT_IN, PERMISSIONS
from novacron.gateway.identity.stored_keys import StoredKeys


async def test_a_key_is_made_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "novacron"
    key, made = first_key(folder, hash_key)
    assert made is not None
    file = folder / FILE_NAME
    assert made.text not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert os.listdir(folder) == [FILE_NAME]
    again, no_text = first_key(folder, hash_key)
    assert (again, no_text) == (key, None)

    stored = StoredKeys(FirstKeyDirectory(again, alone=True), is_key_of, roles=BUILT_IN)
    principal = await stored.authenticate(made.text.encode())
    assert principal is not None
    assert principal.permissions == set(PERMISSIONS)
    assert principal.tenant_id == "", "the only tenant, as without a key"
    assert await stored.authenticate(made.text.encode() + b"x") is None
    beside = StoredKeys(FirstKeyDirectory(again, alone=False), is_key_of, roles=BUILT_IN)
    principal = await beside.authenticate(made.text.encode())
    assert principal is not None
    assert principal.tenant_id.startswith("tenant:")


def test_of_servers_that_start_together_one_makes_the_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: first_key(tmp_path, lambda text: text), range(8)))
    assert len({key for key, _ in outcomes}) == 1
    assert sum(made is not None for _, made in outcomes) == 1


def test_a_file_that_cannot_be_trusted_or_read_is_told(tmp_path: Path) -> None:
    first_key(tmp_path, hash_key)
    file = tmp_path / FILE_NAME
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        first_key(tmp_path, hash_key)
    file.chmod(0o600)
    file.write_text('{"prefix": "nck_')
    with pytest.raises(ConfigError, match="Delete it"):
        first_key(tmp_path, hash_key)
    with pytest.raises(ConfigError, match="--state-dir"):
        first_key(file, hash_key)
