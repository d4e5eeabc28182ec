"""Ranks on "other hosts" of one machine, for tests: behind real, encrypted links on loopback."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from novacron.engine.link.keys import KeyPair
from novacron.engine.link.linked_ranks import open_rank_link
from novacron.engine.link.rank_process import prepare
from novacron.engine.link.rank_supervisor import RankSupervisor, SupervisorConfig
from novacron.engine.link.tensor_listener import RankListener
from novacron.executor.hosts.host_team import HostsOfRanks
from novacron.executor.hosts.hosted_rank import serve_group
from novacron.executor.hosts.own_part import OwnHost
from novacron.parallel.messages.tensor_message import Compression

LEADER: Final = KeyPair.make()
TIMEOUT_S: Final = 5.0


class RankThread:
    """Ranks in a thread of this process, `num_lives` one after the other, each of which serves one
    group. `model` is where the checkpoint lies on their "host", `given` what was set there."""

    def __init__(self, model: Path, *, num_lives: int = 1, **given: object) -> None:
        self.losses: list[str] = []
        self.reason = ""  # why its last group is over
        self.fault: ConnectionError | None = None  # what the next step meets with
        self._keys = KeyPair.make()
        self._given = {"num_threads": 1, "model": str(model), **given}
        self._num_lives = num_lives
        self._listener = self._listen("tcp://127.0.0.1:0")
        self.address = str(self._listener.address)
        self.port = self._listener.port
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _listen(self, place: str) -> RankListener:
        return RankListener(
            place,
            self._keys,
            [LEADER.public],
            timeout_s=TIMEOUT_S,
            on_loss=self.losses.append,
        )

    def _run(self) -> None:
        for life in range(self._num_lives):
            if life:
                self._listener = self._listen(f"tcp://127.0.0.1:{self.port}")
            host = OwnHost(
                listener=self._listener,
                open_link=partial(open_rank_link, self._keys, TIMEOUT_S, 0),
                prepare=partial(prepare, self._given),
                on_loss=self.losses.append,
                computing=self._compute,
            )
            try:
                self.reason = serve_group(host)
            finally:
                self._listener.close()

    def _compute(self, begins: bool) -> None:
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault

    def join(self) -> None:
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.join()


class RankHost:
    """`novacron rank` without its command line: processes, one after the other, on one port."""

    def __init__(self, num_threads: int = 1) -> None:
        self.supervisor = RankSupervisor(
            SupervisorConfig(
                listen="tcp://127.0.0.1:0",
                keys=KeyPair.make(),
                allowed=(LEADER.public,),
                given={"num_threads": num_threads},
                log_level="info",
                log_format="json",
            )
        )
        self._thread = threading.Thread(target=self.supervisor.run, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return self.supervisor.address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.supervisor.end()
        self._thread.join()


def hosts_at(
    *addresses: str,
    owner: str = "tests",
    compression: Compression = Compression.NONE,
    timeout_s: float = TIMEOUT_S,
) -> HostsOfRanks:
    """For a LinkedPipelineExecutor with LEADER's key."""
    return HostsOfRanks(
        addresses=addresses,
        owner=owner,
        open_link=partial(open_rank_link, LEADER, timeout_s, 0),
        timeout_s=timeout_s,
        step_timeout_s=600.0,
        compression=compression,
    )
