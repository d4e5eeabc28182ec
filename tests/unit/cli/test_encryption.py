"""Keys of what is kept, from making one to going over to another, and how encrypted blocks are
looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from novacron.cli.main import cli
from novacron.cli.response_cache import open_response_cache
from novacron.cli.sealing import KEYS, sealing_at
from novacron.config.server import ServerConfig
from novacron.encryption.key_places import FolderPlace
from novacron.encryption.master_keys import new_master_key
from novacron.errors import ConfigError
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.encrypted_tier import EncryptedTier, encrypted_identity
from novacron.kv_tiers.model_label import ModelLabel, write_label
from novacron.response_cache.answer import CachedAnswer
from novacron.response_cache.identity import Key
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, put

LIMIT = 8 * 16384
KEY = Key("tenant", "digest")


def novacron(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def key_file(folder: Path, *keys: str) -> str:
    file = folder / "master"
    file.touch(mode=0o600)
    file.write_text("\n".join(keys))
    return f"file:{file}"


def store_blocks(folder: Path, source: str) -> None:
    cipher = sealing_at(FolderPlace(folder / KEYS), source)
    identity = encrypted_identity(IDENTITY)
    tier = EncryptedTier(
        DiskTier(folder, LIMIT, RECORD_BYTES + cipher.overhead_bytes, identity), cipher
    )
    put(tier, 1, 2, 3)
    tier.close()
    label = ModelLabel(
        model="small", model_version="v", kv_identity="int8 x", block_size=16, is_encrypted=True
    )
    write_label(folder, identity, label)


def test_a_new_key_is_one_and_each_another() -> None:
    first, second = (novacron("encryption", "new-key").output.strip() for _ in range(2))
    assert first != second
    assert len(first) == 44


def test_from_one_master_key_to_another(tmp_path: Path) -> None:
    old, new = new_master_key(), new_master_key()
    blocks = tmp_path / "blocks"
    store_blocks(blocks, key_file(tmp_path, old))
    at = ("--encryption-key", key_file(tmp_path, new, old), "--kv-disk-path", str(blocks),
          "--state-dir", str(tmp_path / "state"))  # fmt: skip
    done = novacron("encryption", "rotate", *at)
    assert (done.exit_code, "1 data keys wrapped anew" in done.output) == (0, True)
    key_file(tmp_path, new)
    verified = novacron("cache", "verify", "--kv-disk-path", str(blocks), *at[:2])
    assert (verified.exit_code, verified.output) == (0, "3 blocks check, 0 do not.\n")
    shown = novacron("encryption", "status", *at).output
    assert "2 data keys" in shown
    assert "not known" not in shown
    key_file(tmp_path, old)
    assert "is not known" in novacron("encryption", "status", *at).output
    assert novacron("encryption", "rotate", *at).exit_code == 1


def test_a_wrong_key_is_an_error_and_without_one_blocks_are_left_alone(tmp_path: Path) -> None:
    store_blocks(tmp_path / "blocks", key_file(tmp_path, new_master_key()))
    at = ("--kv-disk-path", str(tmp_path / "blocks"))
    without = novacron("cache", "verify", *at, "--drop")
    assert (without.exit_code, "3 blocks are encrypted" in without.output) == (0, True)
    wrong = novacron(
        "cache", "verify", *at, "--encryption-key", key_file(tmp_path, new_master_key())
    )
    assert wrong.exit_code == 2
    assert "was encrypted with the master key" in wrong.output
    assert "int8 encrypted" in novacron("cache", "ls", *at).output


def test_rotate_without_a_key_says_what_is_missing() -> None:
    result = novacron("encryption", "rotate")
    assert (result.exit_code, "encryption_key is not set" in result.output) == (2, True)


async def test_answers_are_sealed_in_the_file_and_found_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/answers.db"
    config = ServerConfig(response_cache="exact", response_cache_url=url)
    source = key_file(tmp_path, new_master_key())
    for _ in range(2):
        opened = open_response_cache(config, source)
        assert opened is not None
        answer = await opened.answers.find(KEY)
        if answer is None:
            await opened.answers.keep(KEY, CachedAnswer(pieces=(), created_s=opened.answers.now_s))
        await opened.answers.close()
    assert answer is not None
    plain = open_response_cache(config)
    assert plain is not None
    assert await plain.answers.find(KEY) is None  # sealed, so nothing for those without a key
    await plain.answers.close()
    with pytest.raises(ConfigError, match="was encrypted with the master key"):
        open_response_cache(config, key_file(tmp_path, new_master_key()))


async def test_an_answer_put_in_anothers_place_is_a_miss(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/answers.db"
    config = ServerConfig(response_cache="exact", response_cache_url=url)
    opened = open_response_cache(config, key_file(tmp_path, new_master_key()))
    assert opened is not None
    await opened.answers.keep(KEY, CachedAnswer(pieces=(), created_s=opened.answers.now_s))
    store = opened.answers._store._store  # type: ignore[attr-defined]
    sealed = await store.get(KEY)
    await store.put(Key("other", "digest"), sealed, 60.0)
    assert await opened.answers.find(Key("other", "digest")) is None
    assert await opened.answers.find(KEY) is not None
    await opened.answers.close()
