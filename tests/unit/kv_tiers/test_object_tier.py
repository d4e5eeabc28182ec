"""ObjectTier against a folder, and against a server of the S3 protocol."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novacron.kv_tiers.object_tier import ObjectTier
from novacron.kv_tiers.tier import ListedTier
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, held, key_of, make_record, put
from novacron.testing.s3_server import has_s3_server, running_s3

NUMBERS = range(12)
numbers_of_names = count()
calls = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "refresh", "delete"]),
        st.lists(st.sampled_from(NUMBERS), max_size=4, unique=True),
    ),
    max_size=20,
)


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """What a store needs to know of the server."""
    if not has_s3_server():
        pytest.skip("moto is not installed")
    with running_s3() as url:
        urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT")).close()
        yield {
            "endpoint": url,
            "access_key_id": "id",
            "secret_access_key": "hush",
            "region": "us-east-1",
        }


def open_tier(
    url: str, *, num_records: int = 0, identity: bytes = IDENTITY, s3: dict[str, str] | None = None
) -> ObjectTier:
    return ObjectTier(
        url,
        record_bytes=RECORD_BYTES,
        identity=identity,
        capacity_bytes=num_records * RECORD_BYTES,
        timeout_s=20.0,
        options={"config": s3} if s3 else None,
    )


def open_folder(folder: Path, num_records: int = 0, identity: bytes = IDENTITY) -> ObjectTier:
    return open_tier(f"file://{folder}", num_records=num_records, identity=identity)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@given(calls=calls)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_was_put_and_not_dropped_is_there(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, list[int]]]
) -> None:
    folder = tmp_path_factory.mktemp("bucket")
    tier = open_folder(folder, num_records=6)
    for call, numbers in calls:
        if call == "put":
            before = set(held(tier, NUMBERS))
            dropped = put(tier, *numbers)
            expected = (before | set(numbers)) - set(dropped)
        elif call == "refresh":
            expected = set(held(tier, NUMBERS))
            tier.refresh()
        else:
            tier.delete([key_of(number) for number in numbers])
            expected = set(held(tier, NUMBERS))
            assert not expected & set(numbers)
        assert set(held(tier, NUMBERS)) == expected
        assert tier.contains([key_of(n) for n in NUMBERS]) == [n in expected for n in NUMBERS]
        assert folder_bytes(folder) == tier.used_bytes <= 6 * RECORD_BYTES


def test_others_see_it_once_they_look(tmp_path: Path) -> None:
    first, second = open_folder(tmp_path), open_folder(tmp_path)
    assert isinstance(second, ListedTier)
    put(first, 1, 2, 3)
    assert second.keys == ()
    second.refresh()
    assert held(second, NUMBERS) == [1, 2, 3]
    assert second.used_bytes == 3 * RECORD_BYTES
    first.delete([key_of(2)])
    assert held(second, NUMBERS) == [], "an object goes as a whole"
    assert second.used_bytes == 0


def test_what_was_put_first_goes_first(tmp_path: Path) -> None:
    tier = open_folder(tmp_path, num_records=4)
    put(tier, 1, 2)
    put(tier, 3)
    assert put(tier, 4, 5) == [1, 2]
    assert held(tier, NUMBERS) == [3, 4, 5]
    with pytest.raises(OSError, match="less than what is to be put"):
        put(tier, *range(20, 26))


def test_other_models_are_elsewhere(tmp_path: Path) -> None:
    put(open_folder(tmp_path), 1)
    other = open_folder(tmp_path, identity=bytes(16))
    other.refresh()
    assert held(other, [1]) == []


def test_objects_of_another_kind_are_passed_over(tmp_path: Path) -> None:
    tier = open_folder(tmp_path)
    put(tier, 1)
    folder = tmp_path / IDENTITY.hex()
    [mine] = folder.iterdir()
    (folder / "README").write_text("hello")
    (folder / "AAAA").write_bytes(bytes(RECORD_BYTES))
    (folder / f"{mine.name}.{mine.name}").write_bytes(bytes(RECORD_BYTES))
    again = open_folder(tmp_path)
    again.refresh()
    assert again.keys == (key_of(1),)


def test_a_bucket_on_a_server_of_the_s3_protocol(s3: dict[str, str]) -> None:
    url = f"s3://bucket/kv/{next(numbers_of_names)}"
    first, second = open_tier(url, s3=s3), open_tier(url, s3=s3)
    put(first, 1, 2, 3)
    put(first, 3, 4)
    second.refresh()
    assert set(second.keys) == {key_of(number) for number in (1, 2, 3, 4)}
    assert held(second, NUMBERS) == [1, 2, 3, 4]
    assert second.contains([]) == []
    first.delete([key_of(4)])
    assert held(second, NUMBERS) == [1, 2, 3]
    third = open_tier(url, s3=s3, num_records=4)
    third.refresh()
    assert put(third, 7, 8) == [1, 2, 3]
    assert held(open_tier(url, s3=s3), [7]) == [], "nobody has looked yet"


def test_a_bucket_that_is_not_there_is_an_os_error(s3: dict[str, str]) -> None:
    tier = open_tier("s3://no-such-bucket/kv", s3=s3)
    for call in (tier.refresh, lambda: put(tier, 1), lambda: tier.contains([])):
        with pytest.raises(OSError, match="object store") as error:
            call()
        assert "hush" not in str(error.value)
        assert len(str(error.value)) < 400


def test_a_url_that_is_none_is_a_value_error() -> None:
    for url in ("s3://", "gopher://x/y"):
        with pytest.raises(ValueError, match=r"."):
            open_tier(url)


def test_a_folder_that_cannot_be_written_to_is_an_os_error(tmp_path: Path) -> None:
    tier = open_tier(f"file://{tmp_path}")
    (tmp_path / IDENTITY.hex()).write_text("a file where a folder has to be")
    with pytest.raises(OSError, match="object store"):
        tier.put([make_record(1)])
    assert tier.keys == ()
