from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.bench.semantic_pairs import odd_groups, rates, read_groups
from novacron.response_cache.wording import same_question, same_wording, wording_of


def test_no_near_miss_of_the_labelled_questions_passes() -> None:
    """Of all groups; the rates that are told are of the odd ones."""
    groups = read_groups()
    words = {question: wording_of(question) for group in groups for question in group.questions}

    def is_hit(one: str, other: str) -> bool:
        return same_wording(words[one], words[other])

    everything, odd = rates(groups, is_hit), rates(odd_groups(groups), is_hit)
    assert (everything.num_near, odd.num_near) == (774, 387)
    assert everything.false_near == everything.false_across == 0
    assert odd.hits > 0.4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What's the capital of Peru?", "Please tell me the capital of Peru"),
        ("How do I reset my password?", "How to reset the password?"),
        ("Can you list three rivers?", "Name three rivers."),
        ("flights from Rome to Oslo", "Show me flights from Rome to Oslo!"),
        ("Is it ok to mix A and B?", "Can I mix A and B?"),
    ],
)
def test_other_words_without_a_say_are_passed_over(one: str, other: str) -> None:
    assert same_question(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Should I stop?", "Should I not stop?"),
        ("Can I take it with food?", "Can I take it without food?"),
        ("flights from Rome to Oslo", "flights from Oslo to Rome"),
        ("Is A bigger than B?", "Is B bigger than A?"),
        ("Who is the president?", "Who was the president?"),
        ("Who can vote?", "Who has to vote?"),
        ("Turn on the light.", "Turn off the light."),
        ("What is your name?", "What is my name?"),
        ("Where is it?", "When is it?"),
        ("Convert 5 km to miles", "Convert 5.5 km to miles"),
        ("Is Paris in France?", "What is Paris in France?"),
        ("What is 3 - 2?", "What is 3 + 2?"),
        ("a or b", "a and b"),
        ("Wer ist der Kanzler?", "Wer war der Kanzler?"),
        ("日本の首都は", "中国の首都は"),
    ],
)
def test_what_has_a_say_counts(one: str, other: str) -> None:
    assert not same_question(one, other)
    assert not same_question(other, one)


@given(st.text(max_size=40), st.text(max_size=40))
def test_it_is_symmetric_and_every_question_is_itself(one: str, other: str) -> None:
    assert same_question(one, one)
    assert same_question(one, other) == same_question(other, one)


@given(st.sampled_from([q for group in read_groups() for q in group.questions]), st.integers(0, 99))
def test_another_number_is_another_question(question: str, number: int) -> None:
    assert not same_question(f"{question} {number}", f"{question} {number + 1}")
