"""RedisTier against a real server: what is there, who sees it, what limit and time take away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.kv_tiers.packing import Packing, Whole
from novacron.kv_tiers.redis_tier import RedisTier
from novacron.kv_tiers.tier import Bytes, SharedTier
from novacron.records.block import BlockHash
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, held, key_of, make_record, put
from novacron.testing.kv_scopes import A, B, check_scopes, numbers_of, put_some
from novacron.testing.redis_server import find_server, running_redis

pytestmark = pytest.mark.skipif(find_server() is None, reason="there is no redis-server")

PATIENCE_S = 30.0
NUMBERS = range(12)
namespaces = (f"test{number}" for number in count())
calls = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "use", "delete"]),
        st.lists(st.sampled_from(NUMBERS), max_size=4, unique=True),
    ),
    max_size=20,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    with running_redis() as socket:
        yield socket


def open_tier(
    server: Path,
    namespace: str,
    *,
    num_records: float = 0,
    ttl_s: float = 3600.0,
    identity: bytes = IDENTITY,
    packing: Packing | None = None,
) -> RedisTier:
    return RedisTier(
        f"unix://{server}",
        record_bytes=RECORD_BYTES,
        identity=identity,
        capacity_bytes=int(num_records * RECORD_BYTES),
        ttl_s=ttl_s,
        namespace=namespace,
        timeout_s=PATIENCE_S,
        packing=packing,
    )


class Shortened(Whole):
    """Records of as many bytes as the number of their block."""

    def pack(self, key: BlockHash, record: Bytes) -> bytes:
        return bytes(int.from_bytes(key, "little"))


def num_stored(server: Path, namespace: str) -> int:
    """Records that the server holds, counted by their names."""
    with redis.Redis(unix_socket_path=str(server)) as client:
        names = client.keys(f"{namespace}:*")
        return sum(not name.endswith((b":used", b":sizes", b":scopes")) for name in names)


lengths = st.lists(
    st.lists(st.sampled_from([1, 30, 100, 200, 263]), min_size=1, max_size=3, unique=True).filter(
        lambda numbers: sum(numbers) <= 1.5 * RECORD_BYTES
    ),
    max_size=8,
)


@given(batches=lengths)
@settings(max_examples=30, deadline=None)
def test_the_limit_is_of_bytes_that_records_take(server: Path, batches: list[list[int]]) -> None:
    """Judged by a model: of 396 bytes those used longest ago go first."""
    namespace, limit = next(namespaces), int(1.5 * RECORD_BYTES)
    tier = open_tier(server, namespace, num_records=1.5, packing=Shortened())
    held_bytes: list[int] = []  # used longest ago first
    for numbers in batches:
        put(tier, *numbers)
        held_bytes = [one for one in held_bytes if one not in numbers] + numbers
        while sum(held_bytes) > limit:
            held_bytes.pop(0)
        with redis.Redis(unix_socket_path=str(server)) as client:
            names = [name for name in client.keys(f"{namespace}:*") if name[-32:].isalnum()]
            taken = sorted(client.strlen(name) for name in names)
        assert taken == sorted(held_bytes)
        assert tier.used_bytes == sum(held_bytes) <= limit
    tier.close()


def test_books_that_the_server_lost_do_not_empty_it(server: Path) -> None:
    namespace = next(namespaces)
    tier = open_tier(server, namespace, num_records=3)
    put(tier, 1, 2, 3)
    with redis.Redis(unix_socket_path=str(server)) as client:
        client.delete(f"{namespace}:{IDENTITY.hex()}:used")
    assert put(tier, 4, 5) == []
    assert held(tier, [4, 5]) == [4, 5]


@given(calls=calls)
@settings(max_examples=40, deadline=None)
def test_two_that_share_it_see_the_same_within_one_limit(
    server: Path, calls: list[tuple[str, list[int]]]
) -> None:
    """Judged by a model: the least recently used of five records goes."""
    namespace = next(namespaces)
    tiers = [open_tier(server, namespace, num_records=5) for _ in range(2)]
    expected: dict[int, None] = {}  # used longest ago first
    for turn, (call, numbers) in enumerate(calls):
        tier = tiers[turn % 2]
        if call == "put":
            dropped = put(tier, *numbers)
            for number in numbers:
                expected.pop(number, None)
                expected[number] = None
            gone = list(expected)[: max(0, len(expected) - 5)]
            for number in gone:
                del expected[number]
            assert dropped == gone
        elif call == "use":
            found = tier.contains([key_of(number) for number in numbers])
            assert found == [number in expected for number in numbers]
            for number in numbers:
                if number in expected:
                    del expected[number]
                    expected[number] = None
        else:
            tier.delete([key_of(number) for number in numbers])
            for number in numbers:
                expected.pop(number, None)
        for one in tiers:
            assert set(held(one, NUMBERS)) == set(expected)
        assert num_stored(server, namespace) == len(expected)
        tier.contains([])
        assert tier.used_bytes == len(expected) * RECORD_BYTES
    for one in tiers:
        one.close()


def test_it_tells_whose_records_it_has_whoever_put_them(server: Path) -> None:
    namespace = next(namespaces)
    check_scopes(open_tier(server, namespace), open_tier(server, namespace))


def test_whose_a_record_was_goes_with_it(server: Path) -> None:
    tier = open_tier(server, next(namespaces), num_records=4)
    put_some(tier)
    assert put(tier, 4, 5, 6) == [0, 1, 2]
    assert numbers_of(tier, A) == numbers_of(tier, B) == []


def test_how_much_of_a_chain_is_there(server: Path) -> None:
    tier = open_tier(server, next(namespaces))
    assert isinstance(tier, SharedTier)
    put(tier, 1, 2, 4)
    assert tier.count_leading([key_of(number) for number in (1, 2, 3, 4)]) == 2
    assert tier.count_leading([key_of(1), key_of(4)]) == 2
    assert tier.count_leading([key_of(9)]) == tier.count_leading([]) == 0


def test_other_models_and_other_namespaces_see_nothing(server: Path) -> None:
    namespace = next(namespaces)
    put(open_tier(server, namespace), 1)
    assert held(open_tier(server, namespace, identity=bytes(16)), [1]) == []
    assert held(open_tier(server, next(namespaces)), [1]) == []
    assert held(open_tier(server, namespace), [1]) == [1]


def test_a_record_expires_after_its_last_use_and_is_counted_no_more(server: Path) -> None:
    namespace = next(namespaces)
    tier = open_tier(server, namespace, ttl_s=0.3)
    put(tier, 1, 2)
    with redis.Redis(unix_socket_path=str(server)) as client:
        name = f"{namespace}:{IDENTITY.hex()}:{key_of(1).hex()}"
        client.pexpire(name, 100_000)
        tier.contains([key_of(1)])
        assert client.pttl(name) <= 300, "a use begins its time anew"
        wait_for(lambda: held(tier, [1, 2]) == [])
        wait_for(lambda: not client.keys(f"{namespace}:*"))
    put(tier, 3)
    assert tier.used_bytes == RECORD_BYTES


def test_without_an_expiry_a_record_stays(server: Path) -> None:
    namespace = next(namespaces)
    put(open_tier(server, namespace, ttl_s=0), 1)
    with redis.Redis(unix_socket_path=str(server)) as client:
        assert {client.pttl(name) for name in client.keys(f"{namespace}:*")} == {-1}


def test_more_at_once_than_the_limit_leaves_the_last(server: Path) -> None:
    tier = open_tier(server, next(namespaces), num_records=3)
    result = tier.put([make_record(number) for number in range(8)])
    assert held(tier, range(8)) == [5, 6, 7][-len(held(tier, range(8))) :]
    assert set(result.stored) == {key_of(number) for number in held(tier, range(8))}


def test_what_the_server_dropped_by_itself_is_a_miss(server: Path) -> None:
    namespace = next(namespaces)
    tier = open_tier(server, namespace)
    put(tier, 1, 2)
    with redis.Redis(unix_socket_path=str(server)) as client:
        client.delete(f"{namespace}:{IDENTITY.hex()}:{key_of(1).hex()}")
        client.set(f"{namespace}:{IDENTITY.hex()}:{key_of(2).hex()}", b"cut")
    assert held(tier, [1, 2]) == []
    assert tier.contains([key_of(1)]) == [False]


def test_a_server_that_is_full_refuses_and_can_still_be_read() -> None:
    with running_redis("--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as server:
        tier = open_tier(server, "full")
        number = put_until_refused(tier)
        assert held(tier, range(number)) == list(range(number))


def test_no_server_is_an_os_error(tmp_path: Path) -> None:
    tier = open_tier(tmp_path / "none.sock", "n")
    for call in (
        lambda: put(tier, 1),
        lambda: held(tier, [1]),
        lambda: tier.contains([]),
        lambda: tier.delete([key_of(1)]),
        lambda: tier.count_leading([key_of(1)]),
    ):
        with pytest.raises(OSError, match="Redis"):
            call()


def test_an_error_does_not_tell_the_password() -> None:
    with running_redis("--requirepass", "hush") as server:
        tier = RedisTier(
            f"unix://:wrong-hush@{server}",
            record_bytes=RECORD_BYTES,
            identity=IDENTITY,
            capacity_bytes=0,
            ttl_s=1.0,
            namespace="n",
            timeout_s=PATIENCE_S,
        )
        with pytest.raises(OSError, match="Redis") as error:
            put(tier, 1)
    assert "hush" not in str(error.value)


def put_until_refused(tier: RedisTier) -> int:
    for number in range(100_000):
        try:
            put(tier, number)
        except OSError:
            return number
    raise AssertionError("the server takes everything")


def wait_for(is_so: object) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():  # type: ignore[operator]
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
