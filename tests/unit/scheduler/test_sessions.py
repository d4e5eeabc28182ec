from __future__ import annotations

import pytest

from novacron.scheduler.sessions import Sessions
from novacron.testing.kv_records import key_of

A, B, C = b"session1", b"session2", b"session3"
CHAIN = [key_of(n) for n in range(4)]


def turn(sessions: Sessions, tag: bytes, start_s: float, end_s: float, chain=CHAIN) -> None:
    sessions.start(tag, 100, 60, start_s)
    sessions.end(tag, chain, end_s)


def test_turns_after_the_first_are_returns() -> None:
    sessions = Sessions()
    turn(sessions, A, 0, 1)
    turn(sessions, B, 2, 3)
    turn(sessions, A, 5, 6)
    stats = sessions.stats()
    assert (stats.num_sessions, stats.num_turns, stats.num_returns) == (2, 3, 1)
    assert (stats.return_tokens, stats.return_hit_tokens) == (100, 60)


def test_a_session_is_due_after_its_usual_pause() -> None:
    sessions = Sessions()
    turn(sessions, A, 0, 10)
    assert list(sessions.likely_to_return(15, 3)) == [], "nobody knows when"
    turn(sessions, A, 20, 30)  # a pause of 10 s, so the next is due at 40
    turn(sessions, B, 30, 31, CHAIN[:2])  # no pause of its own yet: that of all
    assert list(sessions.likely_to_return(35, 3)) == []
    assert list(sessions.likely_to_return(37.5, 3)) == [tuple(CHAIN)]
    assert list(sessions.likely_to_return(40, 3)) == [tuple(CHAIN[:2]), tuple(CHAIN)]
    assert list(sessions.likely_to_return(80, 3)) == [], "they did not come"


def test_who_is_running_is_not_about_to_return() -> None:
    sessions = Sessions()
    turn(sessions, A, 0, 10)
    turn(sessions, A, 20, 30)
    sessions.start(A, 100, 60, 39)
    assert list(sessions.likely_to_return(40, 3)) == []
    sessions.end(A, CHAIN, 41)
    assert list(sessions.likely_to_return(50, 3)) == [tuple(CHAIN)]


def test_the_longest_chain_of_a_turn_counts_and_a_new_start_replaces_it() -> None:
    sessions = Sessions()
    turn(sessions, A, 0, 10)
    turn(sessions, A, 20, 30)
    sessions.start(A, 1, 0, 30)
    sessions.start(A, 1, 0, 30)
    sessions.end(A, CHAIN, 30)
    sessions.end(A, CHAIN[:2], 30)
    [chain] = sessions.likely_to_return(40, 5)
    assert chain == tuple(CHAIN)
    turn(sessions, A, 40, 41, CHAIN[2:])
    assert list(sessions.likely_to_return(50, 5)) == [tuple(CHAIN[2:])]


def test_old_and_too_many_sessions_are_forgotten() -> None:
    sessions = Sessions(most_sessions=2, forget_after_s=100)
    turn(sessions, A, 0, 1)
    turn(sessions, B, 2, 3)
    turn(sessions, C, 4, 5)
    turn(sessions, A, 6, 7)
    assert sessions.stats().num_returns == 0
    assert len(sessions) <= 3
    turn(sessions, B, 300, 301)
    assert len(sessions) == 1
    sessions.end(A, CHAIN, 302)  # forgotten meanwhile: nothing happens
    assert len(sessions) == 1


@pytest.mark.parametrize("pauses", [[5.0, 5.0, 5.0], [1.0, 9.0, 5.0]])
def test_the_pause_is_between_the_shortest_and_the_longest(pauses: list[float]) -> None:
    sessions = Sessions()
    now_s = 0.0
    turn(sessions, A, now_s, now_s)
    for pause_s in pauses:
        now_s += pause_s
        turn(sessions, A, now_s, now_s)
    due = [n for n in range(120) if list(sessions.likely_to_return(now_s + n / 10, 0.0))]
    assert min(pauses) <= due[0] / 10 <= max(pauses)
    assert due == list(range(due[0], due[-1] + 1))
