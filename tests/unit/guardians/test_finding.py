# ruff: noqa: RUF001 - letters that look alike are the point here
"""What is found in texts that people have labelled, and what is not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.unit.guardians.labelled_texts import CREDENTIAL_TEXTS, INJECTION_TEXTS, PII_TEXTS

from novacron.guardians.credentials import CREDENTIALS
from novacron.guardians.folding import fold, lower
from novacron.guardians.injection import INJECTION
from novacron.guardians.pii import PII
from novacron.guardians.scanning import Entity, find
from novacron.guardians.words import word_entities


def kinds(entities: Sequence[Entity], text: str) -> set[str]:
    """Of what is masked: a span inside another one is none of its own."""
    found: set[str] = set()
    at = 0
    for span in find(entities, text):
        if span.end > at:
            found.add(span.kind)
            at = span.end
    return found


def precision_and_recall(pairs: Sequence[tuple[set[str], set[str]]]) -> tuple[float, float]:
    """Of (found, labelled) pairs."""
    right = sum(len(found & labelled) for found, labelled in pairs)
    num_found = sum(len(found) for found, _ in pairs)
    num_labelled = sum(len(labelled) for _, labelled in pairs)
    return right / num_found, right / num_labelled


@pytest.mark.parametrize(
    ("entities", "texts"), [(PII, PII_TEXTS), (CREDENTIALS, CREDENTIAL_TEXTS)], ids=["pii", "keys"]
)
def test_entities_are_found_and_lookalikes_are_not(
    entities: Sequence[Entity], texts: Sequence[tuple[str, set[str]]]
) -> None:
    wrong = [
        (text, kinds(entities, text)) for text, label in texts if kinds(entities, text) != label
    ]
    precision, recall = precision_and_recall([(kinds(entities, t), label) for t, label in texts])
    assert (precision, recall) == (1.0, 1.0), wrong


def test_injections_are_found_with_few_mistakes() -> None:
    found = {text: bool(find(INJECTION, text)) for text, _ in INJECTION_TEXTS}
    wrong = [text for text, label in INJECTION_TEXTS if found[text] != label]
    pairs = [
        ({"x"} if found[t] else set(), {"x"} if label else set()) for t, label in INJECTION_TEXTS
    ]
    precision, recall = precision_and_recall(pairs)
    assert precision == 1.0, wrong
    assert recall >= 0.95, wrong


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("Project Falcon is late", True),
        ("PROJECT\n  falcon", True),
        ("project-falcon", True),
        ("projects falcon", False),
        ("falconry", False),
    ],
)
def test_words_of_ones_own(text: str, is_found: bool) -> None:
    assert bool(find(word_entities(["Project Falcon"]), text)) is is_found


def test_folding_keeps_places() -> None:
    text = "İÄ４ﬁ\u200b\U000e0041–ß𝟓"
    assert len(fold(text)) == len(lower(fold(text))) == len(text)
    assert fold("４–𝟓\u2060") == "4-5\u200b"
