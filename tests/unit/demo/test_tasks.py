"""Properties of the generators: determinism, no leak from the test into training, fair checks."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.demo.examples import Check, Example, is_correct, is_held_out
from novacron.demo.facts import COUNTRIES, ELEMENTS, OPPOSITES, PLURALS, WORDS
from novacron.demo.records import FORMATS, draw_records, estimate_tokens
from novacron.demo.tasks import (
    FACT_TABLES,
    RETRIEVAL_TOKENS,
    TASKS,
    held_out_examples,
    training_example,
    worked_difference,
    worked_sum,
)

TRAINED_TASKS = [name for name, task in TASKS.items() if not task.test_only]
SEEDS = st.integers(min_value=0, max_value=10**6)


def last_question(example: Example) -> str:
    return example.messages[-1].content


@pytest.mark.parametrize("task", TASKS)
def test_held_out_examples_depend_on_the_seed_alone(task: str) -> None:
    first = held_out_examples(task, 5, seed=3)
    assert first == held_out_examples(task, 5, seed=3)
    assert first != held_out_examples(task, 5, seed=4)


@pytest.mark.parametrize("task", TASKS)
def test_examples_are_chats_that_end_with_a_question(task: str) -> None:
    for example in held_out_examples(task, 5, seed=0):
        roles = [message.role for message in example.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert all(message.content for message in example.messages)
        assert example.task == task


@pytest.mark.parametrize("task", TASKS)
def test_the_expected_answer_is_judged_right(task: str) -> None:
    for example in held_out_examples(task, 40, seed=1):
        assert is_correct(example, example.answer)
        assert not is_correct(example, "")


@pytest.mark.parametrize("task", TRAINED_TASKS)
def test_training_draws_only_what_is_not_held_out(task: str) -> None:
    rng = Random(5)
    trained = {last_question(training_example(task, rng)) for _ in range(300)}
    tested = {last_question(example) for example in held_out_examples(task, 60, seed=2)}
    if task != "follow_ups":  # the same short question follows several earlier exchanges
        assert not trained & tested


@pytest.mark.parametrize("task", [name for name in TASKS if TASKS[name].test_only])
def test_new_phrasings_have_no_training_examples(task: str) -> None:
    with pytest.raises(ValueError, match=task):
        training_example(task, Random(0))


@pytest.mark.parametrize("name", FACT_TABLES)
def test_new_phrasings_are_not_among_the_trained_ones(name: str) -> None:
    table = FACT_TABLES[name]
    assert table.new
    assert not set(table.new) & set(table.trained)


@pytest.mark.parametrize("name", ["capitals", "currencies"])
def test_the_main_fact_tables_have_at_least_forty_trained_cores(name: str) -> None:
    assert len(FACT_TABLES[name].trained) >= 40


def test_operands_of_the_test_are_never_trained() -> None:
    rng = Random(1)
    trained = {training_example("addition", rng).answer for _ in range(2000)}
    tested = {example.answer for example in held_out_examples("addition", 200, seed=0)}
    assert not trained & tested


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_the_same_random_state_gives_the_same_training_example(seed: int) -> None:
    task = TRAINED_TASKS[seed % len(TRAINED_TASKS)]
    assert training_example(task, Random(seed)) == training_example(task, Random(seed))


@given(st.text())
def test_about_a_tenth_is_held_out_and_always_the_same(text: str) -> None:
    assert is_held_out(text) == is_held_out(text)


def test_the_held_out_share_is_a_tenth() -> None:
    share = sum(is_held_out(str(n)) for n in range(5000)) / 5000
    assert 0.08 < share < 0.12


@given(st.integers(0, 999), st.integers(0, 999))
def test_worked_sums_end_with_the_sum(a: int, b: int) -> None:
    text = worked_sum(a, b)
    assert text.startswith(f"{a} + {b}")
    assert text.endswith(f" {a + b}.")


@given(st.integers(0, 999), st.integers(0, 999))
def test_worked_differences_end_with_the_difference(a: int, b: int) -> None:
    a, b = max(a, b), min(a, b)
    text = worked_difference(a, b)
    assert text.endswith(f" {a - b}.")
    for step in text.partition(": ")[2].split(", ")[:-1]:
        left, _, right = step.partition(" = ")
        first, _, second = left.partition(" - ")
        assert int(first) - int(second) == int(right)


@given(SEEDS, st.sampled_from(RETRIEVAL_TOKENS))
@settings(max_examples=40, deadline=None)
def test_records_have_distinct_keys_and_the_asked_size(seed: int, tokens: int) -> None:
    records = draw_records(Random(seed), tokens)
    assert len(records.keys) == len(records.values) == len(set(records.keys))
    assert abs(estimate_tokens(records.text) - tokens) < 24
    for key, value in zip(records.keys, records.values, strict=True):
        assert records.form.record.format(k=key, v=value) in records.text


def test_record_formats_name_key_and_value() -> None:
    assert all("{k}" in form.record and "{v}" in form.record for form in FORMATS)


@pytest.mark.parametrize("tokens", RETRIEVAL_TOKENS)
def test_the_asked_value_is_in_the_context(tokens: int) -> None:
    for example in held_out_examples(f"retrieval_{tokens}", 10, seed=0):
        assert example.fact in last_question(example)
        assert example.answer.endswith(f" is {example.fact}.")


def test_json_answers_are_json() -> None:
    for example in held_out_examples("json_make", 30, seed=0):
        assert isinstance(json.loads(example.answer), dict)


def test_checks_tell_right_from_wrong() -> None:
    def judge(check: Check, fact: str, text: str) -> bool:
        return is_correct(Example("t", (), fact, fact, check), text)

    assert judge(Check.CONTAINS, "Paris", "It is Paris.")
    assert not judge(Check.CONTAINS, "17", "The value is 175.")
    assert not judge(Check.CONTAINS, "Niger", "That is Nigeria.")
    assert judge(Check.LAST_NUMBER, "85", "7 + 8 = 15, so 85.")
    assert not judge(Check.LAST_NUMBER, "85", "85 or 86")
    assert judge(Check.EXACT, "a b", " a b\n")
    assert not judge(Check.EXACT, "a b", "a b c")
    assert judge(Check.JSON, '{"a": 1}', '{ "a":1 }')
    assert not judge(Check.JSON, '{"a": 1}', '{"a": 1')


def test_tables_are_complete_and_free_of_repetition() -> None:
    assert len(COUNTRIES) >= 171
    for values in (
        [country.name for country in COUNTRIES],
        [country.capital for country in COUNTRIES],
        [element.symbol for element in ELEMENTS],
        [first for first, _ in OPPOSITES],
        [second for _, second in OPPOSITES],
        [singular for singular, _ in PLURALS],
        list(WORDS),
    ):
        assert len(values) == len(set(values))
    assert {country.continent for country in COUNTRIES} == {
        "Africa",
        "Asia",
        "Europe",
        "North America",
        "Oceania",
        "South America",
    }
