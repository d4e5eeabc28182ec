"""This server beside others with the same database."""

from __future__ import annotations

import socket
from importlib.metadata import version
from typing import Final

from novacron.accounts.accounts import Accounts
from novacron.config.folders import database_url
from novacron.config.load import Settings
from novacron.coordination.member import Member
from novacron.coordination.seat import Duty, Seat
from novacron.coordination.shared_state import SharedState
from novacron.errors import ConfigError
from novacron.gateway.handover.handover import OpenedHandover
from novacron.gateway.handover.together import Coordination

_SWEEP_EVERY_S: Final = 10.0


def coordinate(accounts: Accounts | None, settings: Settings, url: str) -> Coordination | None:
    """None without a database. `url` is where this process listens."""
    if accounts is None or accounts.shared is None:
        return None
    member = Member(
        id=accounts.coordinator,
        name=socket.gethostname(),
        address=_address(settings, url),
        version=version("novacron"),
    )
    seat = Seat(accounts.shared, member, settings.cluster.coordinator_timeout)
    if accounts.sweep is not None:
        seat.add(Duty(name="ledger", every_s=_SWEEP_EVERY_S, run=accounts.sweep))
    handover = None
    if _keeps_streams(settings):
        handover = _handover(accounts.shared, seat)
    return Coordination(seat=seat, handover=handover)


def _handover(shared: SharedState, seat: Seat) -> OpenedHandover:
    from novacron.coordination.stream_journal import StreamJournal
    from novacron.gateway.handover.peers import Peers

    return OpenedHandover(
        rows=shared,
        journal=StreamJournal(shared, seat.member_id),
        peers=Peers(lambda member_id: seat.picture.is_alive(member_id)),
    )


def _keeps_streams(settings: Settings) -> bool:
    """Raises ConfigError where it would keep what may only be kept encrypted: the record is not."""
    wanted = settings.cluster.stream_journal
    must_encrypt = bool(settings.engine.cache.encryption_key)
    if wanted == "on" and must_encrypt:
        raise ConfigError(
            "stream_journal is on, but encryption_key is set, and what the database has of streams "
            "is not encrypted. Leave one of them out."
        )
    in_postgresql = database_url(settings.server).startswith("postgres")
    return wanted == "on" or (wanted == "auto" and in_postgresql and not must_encrypt)


def _address(settings: Settings, url: str) -> str:
    """At which other coordinators reach us."""
    named = settings.cluster.coordinator_address
    if named:
        return named.rstrip("/")
    if settings.server.host in ("0.0.0.0", "::", ""):  # nosec B104: the URL is for this machine
        scheme, _, rest = url.partition("://")
        return f"{scheme}://{socket.gethostname()}:{rest.rpartition(':')[2]}"
    return url
