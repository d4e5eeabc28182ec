"""What every store must do, asked of each of them; then what is particular to one."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from novacron.response_cache.identity import Key
from novacron.response_cache.memory_store import MemoryStore
from novacron.response_cache.redis_store import RedisStore
from novacron.response_cache.sqlite_store import SqliteStore
from novacron.response_cache.store import Amount, AnswerStore, StoreFailed
from novacron.testing.clock import FakeClock
from novacron.testing.redis_server import find_server, running_redis

A, B, OTHERS = Key("t1", "a"), Key("t1", "b"), Key("t2", "a")
needs_redis = pytest.mark.skipif(find_server() is None, reason="no redis-server here")


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with running_redis() as socket:
        yield f"unix://{socket}"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=needs_redis)])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> AsyncIterator[AnswerStore]:
    made: AnswerStore
    if request.param == "memory":
        made = MemoryStore(1 << 20, clock)
    elif request.param == "sqlite":
        made = SqliteStore(tmp_path / "answers.db", 1 << 20, clock)
    else:
        url = request.getfixturevalue("redis_url")
        made = RedisStore(url, f"test-{uuid4().hex}", deadline_s=5.0)
    yield made
    await made.close()


async def test_what_was_put_is_found_under_its_key_alone(store: AnswerStore) -> None:
    assert await store.get(A) is None
    await store.put(A, b"one", 60.0)
    await store.put(OTHERS, b"two", 60.0)
    await store.put(A, b"three", 60.0)
    assert await store.get(A) == b"three"
    assert await store.get(OTHERS) == b"two"
    assert await store.get(B) is None
    assert (await store.amount()).entries == 2


async def test_a_flush_is_of_one_tenant_or_of_all_and_can_be_tried(store: AnswerStore) -> None:
    for key in (A, B, OTHERS):
        await store.put(key, b"x" * 100, 60.0)
    tried = await store.flush("t1", dry_run=True)
    assert tried.entries == 2
    assert tried.bytes >= 200
    assert await store.get(A)
    assert await store.flush("t1", dry_run=False) == tried
    assert await store.get(A) is None
    assert await store.get(OTHERS)
    assert (await store.flush(None, dry_run=False)).entries == 1
    assert await store.amount() == Amount(0, 0)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_hit_does_not_extend_an_entry(kind: str, tmp_path: Path, clock: FakeClock) -> None:
    store = _local_store(kind, tmp_path, clock, 1 << 20)
    await store.put(A, b"x", 10.0)
    clock.advance(9.0)
    assert await store.get(A)
    clock.advance(1.0)
    assert await store.get(A) is None
    await store.close()


@needs_redis
async def test_a_hit_does_not_extend_an_entry_on_redis(redis_url: str) -> None:
    store = RedisStore(redis_url, "ttl", deadline_s=5.0)
    await store.put(A, b"x", 100.0)
    client = store._client
    await client.pexpire("ttl:t1:a", 5000)
    for _ in range(3):
        assert await store.get(A) == b"x"
    assert 0 < await client.pttl("ttl:t1:a") <= 5000
    assert await client.hget("ttl:t1:a", "hits") == b"3"
    await store.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_the_least_recently_used_make_room(
    kind: str, tmp_path: Path, clock: FakeClock
) -> None:
    store = _local_store(kind, tmp_path, clock, 10_000)
    for digest in "abc":
        await store.put(Key("t1", digest), b"x" * 2500, 60.0)
        clock.advance(1.0)
    await store.get(A)
    clock.advance(1.0)
    await store.put(Key("t1", "d"), b"x" * 2500, 60.0)
    assert await store.get(A)
    assert await store.get(B) is None
    assert (await store.amount()).bytes <= 10_000
    await store.put(Key("t1", "huge"), b"x" * 20_000, 60.0)
    assert await store.get(A)
    await store.close()


async def test_in_memory_one_tenant_cannot_push_out_all_others(clock: FakeClock) -> None:
    store = MemoryStore(10_000, clock)
    await store.put(OTHERS, b"x" * 1000, 60.0)
    for number in range(50):
        await store.put(Key("t1", str(number)), b"x" * 1000, 60.0)
    assert await store.get(OTHERS)


async def test_a_file_outlives_its_process_and_is_this_user_s(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "folder" / "answers.db"
    first = SqliteStore(path, 1 << 20, clock)
    await first.put(A, b"x", 60.0)
    await first.close()
    second = SqliteStore(path, 1 << 20, clock)
    assert await second.get(A) == b"x"
    await second.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_file_that_is_no_database_is_begun_anew(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "answers.db"
    path.write_bytes(b"not a database, whatever it is" * 100)
    store = SqliteStore(path, 1 << 20, clock)
    await store.put(A, b"x", 60.0)
    assert await store.get(A) == b"x"
    await store.close()


def _unwritable(tmp_path: Path, clock: FakeClock) -> AnswerStore:
    (tmp_path / "file").write_bytes(b"")
    return SqliteStore(tmp_path / "file" / "answers.db", 1 << 20, clock)


def _nobody_there(tmp_path: Path, clock: FakeClock) -> AnswerStore:
    return RedisStore(f"unix://{tmp_path}/no.sock", "x", deadline_s=0.5)


@pytest.mark.parametrize("make", [_unwritable, _nobody_there])
async def test_a_store_that_does_not_work_says_so(
    make: Callable[[Path, FakeClock], AnswerStore], tmp_path: Path, clock: FakeClock
) -> None:
    store = make(tmp_path, clock)
    for question in (store.get(A), store.put(A, b"x", 1.0), store.flush(None, dry_run=True)):
        with pytest.raises(StoreFailed):
            await question
    await store.close()


def _local_store(kind: str, tmp_path: Path, clock: FakeClock, max_bytes: int) -> AnswerStore:
    if kind == "memory":
        return MemoryStore(max_bytes, clock)
    return SqliteStore(tmp_path / "answers.db", max_bytes, clock)
