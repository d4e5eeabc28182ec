"""The guardians that judge a text as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.guardians.duties import duty

from novacron.guardians.canary import Canary, KnownAnswer
from novacron.guardians.degeneration import Degeneration
from novacron.guardians.format_validity import FormatRules, FormatValidity
from novacron.guardians.gate import Gate
from novacron.guardians.hook import Hook
from novacron.guardians.intent import IntentAlignment, cosine
from novacron.guardians.judge import Judge, Question
from novacron.guardians.masking import Masker
from novacron.guardians.records import Outcome, Span, Stage, Subject

PROSE = (
    "The river rises in the hills north of the town and runs through three valleys before it "
    "meets the sea. Along its banks people have built mills, weirs and a few bridges, of which "
    "the oldest is made of wood. In spring, when the snow melts, the water comes up to the road, "
    "and the children are let out of school early. Nobody minds: the fields need what it brings. "
)
TABLE = "\n".join(f"| {i:3} | {i * i:5} | {i**3:8} |" for i in range(30))


def answer(text: str, asked: str = "") -> Subject:
    return Subject(Stage.OUTPUT, text, asked)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, ""),
        (PROSE + "\n" + "-" * 80 + "\n", ""),
        (TABLE, ""),
        ("ha ha ha ha", ""),
        ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10", ""),
        ("- [ ] a\n- [ ] b\n- [ ] c\n- [ ] d\n", ""),
        (PROSE + "I do not know. " * 12, "repetition"),
        ("a" * 100, "repetition"),
        ("-" * 800, "repetition"),
        ("and then the other one said " * 8, "repetition"),
        ("the cat sat on the mat. the mat sat on the cat. " * 12 + "so", "few_words"),
    ],
)
def test_degeneration(text: str, reason: str) -> None:
    assert Degeneration(duty()).check(answer(text)).reason == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "b": "x"}', ""),
        ('```json\n{"a": 1, "b": "x"}\n```', ""),
        ('{"a": 1}', "field_missing"),
        ('{"a": "1", "b": "x"}', "field_of_wrong_type"),
        ('{"a": true, "b": "x"}', "field_of_wrong_type"),
        ("[1]", "not_an_object"),
        ("Sure! {}", "not_json"),
        ("x" * 300, "too_long"),
    ],
)
def test_format(text: str, reason: str) -> None:
    rules = FormatRules(is_json=True, fields={"a": "integer", "b": "string"}, most_characters=200)
    assert FormatValidity(duty(), rules).check(answer(text)).reason == reason


def test_a_piece_of_an_answer_need_not_be_json_yet() -> None:
    guardian = FormatValidity(duty(), FormatRules(is_json=True))
    piece = Subject(Stage.STREAM, '{"a": ', is_whole=False)
    assert guardian.check(piece).outcome is Outcome.PASS


async def letters(texts: Sequence[str], tenant: str) -> Sequence[Sequence[float]]:
    """How often each letter stands there, as a stand-in for a model's vectors."""
    return [[float(text.count(chr(c))) for c in range(97, 123)] for text in texts]


async def test_intent_tells_an_answer_from_one_to_something_else() -> None:
    guardian = IntentAlignment(duty(action=Outcome.FLAG), letters, floor=0.7)
    asked = "which rivers run through the town"
    near = await guardian.judge(answer("the river runs through the town", asked))
    far = await guardian.judge(answer("zzz qqq xxx", asked))
    assert (near.outcome, far.outcome) == (Outcome.PASS, Outcome.FLAG)
    assert near.score > 0.7 > far.score


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8))
def test_cosine_of_a_vector_with_itself(vector: list[float]) -> None:
    expected = 1.0 if any(abs(value) > 1e-100 for value in vector) else 0.0
    if any(0 < abs(value) <= 1e-100 for value in vector):
        return  # too small to be squared
    assert cosine(vector, vector) == pytest.approx(expected)
    assert cosine(vector, [-value for value in vector]) == pytest.approx(-expected)


@pytest.mark.parametrize(
    ("said", "outcome"), [("no", Outcome.PASS), (" Yes\n", Outcome.BLOCK), ("maybe", None)]
)
async def test_a_judge_says_yes_or_no_and_nothing_else_counts(
    said: str, outcome: Outcome | None
) -> None:
    asked: list[Question] = []

    async def ask(question: Question) -> str:
        asked.append(question)
        return said

    judge = Judge(duty(action=Outcome.BLOCK), ask, "No poems.")
    subject = Subject(Stage.OUTPUT, "Roses are red", tenant="t")
    if outcome is None:
        with pytest.raises(ValueError, match="neither yes nor no"):
            await judge.judge(subject)
    else:
        assert (await judge.judge(subject)).outcome is outcome
    assert "Roses are red" in asked[0].text
    assert "No poems." in asked[0].text
    assert (asked[0].choices, asked[0].tenant) == (("yes", "no"), "t")


def test_another_rule_is_another_version() -> None:
    async def ask(question: Question) -> str:
        return "no"

    assert Judge(duty(), ask, "a").version != Judge(duty(), ask, "b").version


def hook_that_says(body: object) -> tuple[Hook, list[dict[str, object]]]:
    posted: list[dict[str, object]] = []

    async def post(url: str, data: bytes, headers: Mapping[str, str]) -> bytes:
        posted.append({"url": url, "headers": headers, **msgspec.json.decode(data)})
        return msgspec.json.encode(body)

    return Hook(duty("mine"), post, "http://guard.example/check", "secret"), posted


async def test_a_hook_posts_and_takes_the_verdict_over() -> None:
    hook, posted = hook_that_says(
        {"verdict": "mask", "reason": "Bad word!", "spans": [{"start": 0, "end": 3, "kind": "x y"}]}
    )
    verdict = await hook.judge(answer("foo bar", "baz"))
    assert (verdict.outcome, verdict.reason, verdict.spans) == (
        Outcome.MASK,
        "bad_word",
        (Span(0, 3, "X_Y"),),
    )
    [sent] = posted
    assert (sent["text"], sent["asked"], sent["stage"], sent["guardian"]) == (
        "foo bar", "baz", "output", "mine",
    )  # fmt: skip
    assert sent["headers"]["authorization"] == "Bearer secret"  # type: ignore[index]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"verdict": "fine"},
        {"verdict": "mask"},
        {"verdict": "mask", "spans": [{"start": 2, "end": 99}]},
        {"verdict": "pass", "score": "high"},
        "pass",
    ],
)
async def test_a_hook_that_does_not_make_sense_is_an_error(body: object) -> None:
    hook, _ = hook_that_says(body)
    with pytest.raises((ValueError, KeyError, msgspec.MsgspecError)):
        await hook.judge(answer("foo bar"))


async def test_the_canary_asks_in_turn_and_tells_the_share_of_right_answers() -> None:
    right = True

    async def ask(question: Question) -> str:
        return "It is PARIS." if right and "France" in question.text else "2"

    known = [KnownAnswer("Capital of France?", "Paris"), KnownAnswer("1 + 1?", "2")]
    canary = Canary(duty(action=Outcome.FLAG), ask, known, floor=0.8)
    assert [(await canary.judge(answer(""))).score for _ in range(2)] == [1.0, 1.0]
    right = False
    worse = await canary.judge(answer(""))
    assert (worse.outcome, worse.score) == (Outcome.FLAG, pytest.approx(2 / 3))


@given(st.lists(st.sampled_from(["EMAIL", "CARD"]), max_size=6), st.data())
def test_one_value_has_one_placeholder(kinds: list[str], data: st.DataObject) -> None:
    masker = Masker()
    values = [(kind, data.draw(st.sampled_from("abc"))) for kind in kinds]
    given_out = {value: masker.placeholder(*value) for value in values}
    assert len(set(given_out.values())) == len(set(values))
    assert {value: masker.placeholder(*value) for value in values} == given_out


def test_spellings_of_a_number_are_one_value() -> None:
    masker = Masker()
    text = "4111 1111 1111 1111, 4111111111111111, 5555555555554444"
    spans = [Span(0, 19, "CARD"), Span(21, 37, "CARD"), Span(39, 55, "CARD")]
    assert masker.mask(text, spans) == "[CARD_1], [CARD_1], [CARD_2]"


@given(st.lists(st.text(max_size=5), max_size=20), st.one_of(st.none(), st.integers(1, 12)))
def test_a_gate_lets_nothing_through_unjudged(pieces: list[str], stride: int | None) -> None:
    gate, out, judged = Gate(stride), "", ""
    for i, piece in enumerate([*pieces, ""]):
        gate.push(piece, is_last=i == len(pieces))
        if gate.is_due:
            judged = gate.text
            out += gate.release()
        assert judged.startswith(out)
        assert stride is None or gate.num_held < stride
    assert out == "".join(pieces)
