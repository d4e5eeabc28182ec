from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.scheduler.prompt_lookup import PromptLookup


def draft(token_ids: list[int], max_drafts: int = 3, low: int = 2, high: int = 4) -> list[int]:
    return list(PromptLookup(lookup_min=low, lookup_max=high).draft(token_ids, max_drafts))


def test_it_copies_what_followed_the_last_tokens_before() -> None:
    assert draft([1, 2, 3, 4, 5, 9, 1, 2]) == [3, 4, 5]


def test_too_short_a_match_is_none() -> None:
    assert draft([1, 2, 3, 9, 2]) == []
    assert draft([7, 8]) == []
    assert draft([7]) == []


def test_a_longer_match_wins_over_a_later_one() -> None:
    assert draft([5, 1, 2, 30, 6, 1, 2, 40, 5, 1, 2], 1) == [30]


def test_of_equally_long_matches_the_latest_wins() -> None:
    assert draft([5, 1, 2, 30, 6, 1, 2, 40, 7, 1, 2], 1) == [40]


def test_what_repeats_goes_on_repeating() -> None:
    assert draft([9, 1, 2, 1, 2], 5) == [1, 2, 1, 2, 1]
    assert draft([3, 3, 3], 4) == [3, 3, 3, 3]


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(1, 8),
    st.data(),
)
def test_it_finds_what_a_plain_search_finds(
    token_ids: list[int], low: int, more: int, max_drafts: int, data: st.DataObject
) -> None:
    """However the tokens came: at once or in pieces. (Short texts: not too many candidates.)"""
    lookup = PromptLookup(lookup_min=low, lookup_max=low + more)
    for end in sorted(data.draw(st.sets(st.integers(1, len(token_ids)), max_size=4))):
        lookup.draft(token_ids[:end], max_drafts)
    found = list(lookup.draft(token_ids, max_drafts))
    if len(token_ids) <= 16:
        assert found == plain_search(token_ids, low, low + more, max_drafts)
    assert len(found) in (0, max_drafts)
    if found:
        assert any(
            token_ids[end - low : end] == token_ids[-low:] and token_ids[end] == found[0]
            for end in range(low, len(token_ids))
        )


def plain_search(token_ids: list[int], low: int, high: int, max_drafts: int) -> list[int]:
    for length in range(min(high, len(token_ids) - 1), low - 1, -1):
        for end in range(len(token_ids) - 1, length - 1, -1):
            if token_ids[end - length : end] == token_ids[-length:]:
                text = list(token_ids)
                for place in range(end, end + max_drafts):
                    text.append(text[place])
                return text[len(token_ids) :]
    return []
