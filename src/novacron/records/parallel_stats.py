"""What ranks and links have done: totals since the start of the engine, or of the server."""

from __future__ import annotations

import msgspec


class RankStats(msgspec.Struct, frozen=True, kw_only=True):
    """One rank of an engine. A meeting is a sum, or a concatenation, over the ranks of its stage.
    It waits for these, and for the hidden states of the stage before (rank 0: of the last one)."""

    rank: int
    stage: int = 0
    num_steps: int = 0
    num_meetings: int = 0
    sent_bytes: int = 0  # to other ranks of its stage, and to the next stage
    waited_s: float = 0.0
    step_s: float = 0.0  # in steps, waiting included; 0 where nobody measures it


class LinkStats(msgspec.Struct, frozen=True, kw_only=True):
    """A link to another host. `round_trip_s` is the newest, None before the first;
    `num_resent` are segments that TCP sent again, `num_dropped` messages of an epoch that is over,
    `num_lost` links that ended without being told to."""

    place: str = ""  # HOST:PORT
    round_trip_s: float | None = None
    num_sent: int = 0
    num_received: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    num_resent: int = 0
    num_dropped: int = 0
    num_lost: int = 0

    def after(self, earlier: LinkStats) -> LinkStats:
        """With the totals of a link that there was before."""
        names = (
            "num_sent", "num_received", "sent_bytes", "received_bytes", "num_resent",
            "num_dropped", "num_lost",
        )  # fmt: skip
        added = {name: getattr(self, name) + getattr(earlier, name) for name in names}
        return LinkStats(place=self.place or earlier.place, round_trip_s=self.round_trip_s, **added)


class RankLinkStats(msgspec.Struct, frozen=True, kw_only=True):
    """The link between two ranks of an engine on different hosts, as the one that connects (`rank`)
    sees it. The round trip is TCP's, of the network alone."""

    rank: int
    peer: int
    link: LinkStats
