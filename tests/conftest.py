"""The same run every time: the same examples, and nothing that an engine keeps on disk goes beyond
a test run, or from one test to the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from novacron.engine import cache_books
from novacron.executor import local_tiers
from novacron.scheduler.fetch_choice import AlwaysFetch

settings.register_profile("same-examples", derandomize=True, deadline=None)
settings.register_profile("new-examples", deadline=None)  # pytest --hypothesis-profile=new-examples
settings.load_profile("same-examples")


@pytest.fixture(scope="session", autouse=True)
def _keep_blocks_off_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engines in this process have a disk tier only if a test asks for one. Those of processes of
    their own that know only defaults find an empty home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(local_tiers, "_DISK_BYTES", 0)
        yield


@pytest.fixture(scope="session", autouse=True)
def _fetch_whatever_computing_takes() -> Iterator[None]:
    """What a busy machine makes of costs must not decide what a test sees."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_books, "MeasuredFetchChoice", lambda *args, **kwargs: AlwaysFetch())
        yield
