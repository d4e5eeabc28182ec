"""What is counted of a link."""

from __future__ import annotations

import socket

from novacron.engine.link.link_counts import LinkCounts
from novacron.records.parallel_stats import LinkStats


def test_a_round_trip_is_what_an_echo_took_without_what_the_other_end_kept_it() -> None:
    counts = LinkCounts()
    counts.see_echo(0.0, 5.0, now_s=9.0)  # of a host that has heard nothing yet
    assert counts.stats().round_trip_s is None
    counts.see_echo(10.0, 0.25, now_s=10.75)
    assert counts.stats().round_trip_s == 0.5


def test_what_passes_is_counted_over_all_links_to_a_place() -> None:
    earlier = LinkStats(place="a:1", num_sent=2, sent_bytes=20, num_lost=1, round_trip_s=9.0)
    counts = LinkCounts()
    counts.place = "a:1"
    counts.see_sent(7)
    counts.see_received(5)
    counts.see_received(6)
    counts.see_dropped()
    assert counts.stats().after(earlier) == LinkStats(
        place="a:1", num_sent=3, sent_bytes=27, num_received=2, received_bytes=11, num_dropped=1,
        num_lost=1,
    )  # fmt: skip


def test_the_system_is_asked_what_tcp_sent_again_and_the_socket_stays_open() -> None:
    counts = LinkCounts()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as one:
            counts.see_resent(one.fileno())
            assert counts.stats().num_resent == 0
            counts.ask_system([one.fileno()])
            found = counts.stats().round_trip_s
            assert found is not None
            assert 0 < found < 10  # seconds, and TCP has measured the handshake
            one.send(b"still open")
            closed = one.fileno()
        counts.see_resent(closed)
        counts.ask_system([closed])
        assert counts.stats().round_trip_s == found, "the newest that is known"
    counts.see_resent(None)
    assert counts.stats().num_resent == 0
