"""This server beside others with the same database."""

from __future__ import annotations

import socket
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from novacron.accounts.accounts import Accounts
from novacron.cli.privacy import shared_retention
from novacron.config.folders import keeps_streams
from novacron.config.load import Settings
from novacron.coordination.member import Member
from novacron.coordination.seat import Duty, Seat
from novacron.coordination.shared_state import SharedState
from novacron.gateway.handover.handover import OpenedHandover
from novacron.gateway.handover.together import Coordination

if TYPE_CHECKING:
    from novacron.encryption.key_places import KeyPlace

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
    if (retention := shared_retention(settings, accounts)) is not None:
        seat.add(retention)
    handover = None
    if keeps_streams(settings.cluster, settings.server):
        handover = _handover(accounts.shared, accounts.data_keys, settings, seat)
    return Coordination(seat=seat, handover=handover)


def _handover(
    shared: SharedState, data_keys: KeyPlace | None, settings: Settings, seat: Seat
) -> OpenedHandover:
    """Raises ConfigError if streams are to be kept encrypted, and cannot be."""
    from novacron.coordination.stream_journal import StreamJournal
    from novacron.gateway.handover.peers import Peers

    peers = Peers(lambda member_id: seat.picture.is_alive(member_id))
    source = settings.engine.cache.encryption_key
    if not source or data_keys is None:
        journal = StreamJournal(shared, seat.member_id)
        return OpenedHandover(rows=shared, journal=journal, peers=peers)
    from novacron.cli.sealing import sealing_at
    from novacron.coordination.sealed_rows import SealedRows

    rows = SealedRows(shared, sealing_at(data_keys, source, is_open=True))
    return OpenedHandover(
        rows=rows,
        journal=StreamJournal(rows, seat.member_id),
        peers=peers,
        seal_request=rows.seal_request,
    )


def _address(settings: Settings, url: str) -> str:
    """At which other coordinators reach us."""
    named = settings.cluster.coordinator_address
    if named:
        return named.rstrip("/")
    if settings.server.host in ("0.0.0.0", "::", ""):  # nosec B104: the URL is for this machine
        scheme, _, rest = url.partition("://")
        return f"{scheme}://{socket.gethostname()}:{rest.rpartition(':')[2]}"
    return url
