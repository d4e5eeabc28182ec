"""The tasks of the bundled model: generators of questions for training and for the test.

Every draw is deterministic in its `Random`. A draw belongs to the test when the hash of what makes
it unique (its question, its operands or its context) says so; training rejects those draws, the
test keeps only them. Tasks named `*_new_phrasing` ask in words that training never uses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

from novacron.demo import phrasing
from novacron.demo.chat_texts import DO_NOT_KNOW, NOVACRON, SMALL_TALK, UNKNOWN, Topic
from novacron.demo.examples import Check, Example, Message, is_held_out
from novacron.demo.facts import (
    CITIES,
    COLORS,
    COUNTRIES,
    ELEMENTS,
    JOBS,
    MONTHS,
    OPPOSITES,
    PEOPLE,
    PLURALS,
    WEEKDAYS,
    WORDS,
)
from novacron.demo.records import ask_for_value, draw_records, introduce, state_value

RETRIEVAL_TOKENS: Final = (64, 128, 256, 512, 1024, 2048)


@dataclass(frozen=True)
class Draw:
    """One drawn question; `key` decides between training and test."""

    key: str
    question: str
    answer: str
    fact: str
    check: Check = Check.CONTAINS
    earlier: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Task:
    """A named generator; `test_only` tasks give no training examples."""

    name: str
    draw: Callable[[Random], Draw]
    test_only: bool = False


@dataclass(frozen=True)
class Fact:
    """One fact of a table: the thing asked about, its property and the sentence that states it."""

    thing: str
    value: str
    sentence: str


@dataclass(frozen=True)
class FactTable:
    """Facts of one kind and the cores of the questions about them."""

    nouns: tuple[str, ...]
    facts: tuple[Fact, ...]
    trained: tuple[str, ...]
    new: tuple[str, ...]

    def ask(self, fact: Fact, rng: Random, new_phrasing: bool = False) -> str:
        core = rng.choice(self.new if new_phrasing else self.trained)
        thing = fact.thing
        return phrasing.dress(
            core.format(n=rng.choice(self.nouns), x=thing, xs=phrasing.possessive(thing)), rng
        )


def _table(
    nouns: tuple[str, ...], facts: list[Fact], cores: tuple[str, ...], offset: int
) -> FactTable:
    trained, new = phrasing.split_cores(cores, every=5, offset=offset)
    return FactTable(nouns, tuple(facts), trained, new)


def _property_facts(noun: str, pairs: list[tuple[str, str]]) -> list[Fact]:
    return [Fact(thing, value, f"The {noun} of {thing} is {value}.") for thing, value in pairs]


_CORES: Final = phrasing.PROPERTY_CORES
FACT_TABLES: Final = {
    "capitals": _table(
        ("capital",),
        _property_facts("capital", [(c.name, c.capital) for c in COUNTRIES]),
        _CORES + phrasing.CAPITAL_CORES,
        offset=4,
    ),
    "currencies": _table(
        ("currency",),
        [
            Fact(c.name, c.currency, f"The currency of {c.name} is the {c.currency}.")
            for c in COUNTRIES
        ],
        _CORES + phrasing.CURRENCY_CORES,
        offset=3,
    ),
    "reverse_capitals": _table(
        ("country",),
        [Fact(c.capital, c.name, f"{c.capital} is the capital of {c.name}.") for c in COUNTRIES],
        phrasing.CAPITAL_OWNER_CORES,
        offset=2,
    ),
    "continents": _table(
        ("continent",),
        _property_facts("continent", [(c.name, c.continent) for c in COUNTRIES]),
        phrasing.CONTINENT_CORES,
        offset=1,
    ),
    "element_symbols": _table(
        ("symbol", "chemical symbol"),
        _property_facts("symbol", [(e.name, e.symbol) for e in ELEMENTS]),
        _CORES,
        offset=2,
    ),
    "element_numbers": _table(
        ("atomic number",),
        _property_facts("atomic number", [(e.name, str(e.number)) for e in ELEMENTS]),
        _CORES,
        offset=1,
    ),
    "opposites": _table(
        ("opposite",),
        _property_facts("opposite", [*OPPOSITES, *((b, a) for a, b in OPPOSITES)]),
        _CORES,
        offset=0,
    ),
    "plurals": _table(("plural",), _property_facts("plural", list(PLURALS)), _CORES, offset=2),
}

_NEXT_CORES: Final = (
    "which {n} comes after {x}?",
    "what comes after {x}?",
    "what is the {n} after {x}?",
    "after {x}, which {n} comes next?",
    "tell me the {n} after {x}.",
    "it is {x}. which {n} comes next?",
)

_FOLLOW_UPS: Final = (
    "and {x}?",
    "what about {x}?",
    "and for {x}?",
    "and of {x}?",
    "how about {x}?",
    "now {x}.",
    "the same for {x}?",
    "and what about {x}?",
)

_ADD_CORES: Final = (
    "what is {a} + {b}?",
    "{a} + {b}",
    "{a} + {b} =",
    "{a}+{b}",
    "{a}+{b}=?",
    "calculate {a} + {b}.",
    "compute {a} + {b}.",
    "what is {a} plus {b}?",
    "{a} plus {b}?",
    "add {a} and {b}.",
    "how much is {a} + {b}?",
    "how much is {a} plus {b}?",
    "what is the sum of {a} and {b}?",
    "what do you get if you add {a} and {b}?",
    "i have {a} apples and get {b} more. how many do i have?",
    "there are {a} cats and {b} dogs. how many animals are there?",
)
_SUBTRACT_CORES: Final = (
    "what is {a} - {b}?",
    "{a} - {b}",
    "{a} - {b} =",
    "{a}-{b}",
    "calculate {a} - {b}.",
    "compute {a} - {b}.",
    "what is {a} minus {b}?",
    "{a} minus {b}?",
    "subtract {b} from {a}.",
    "how much is {a} minus {b}?",
    "take {b} away from {a}.",
    "i have {a} apples and give away {b}. how many are left?",
)
_MULTIPLY_CORES: Final = (
    "what is {a} x {b}?",
    "{a} x {b}",
    "{a} x {b} =",
    "{a} * {b}",
    "{a}*{b}",
    "calculate {a} x {b}.",
    "what is {a} times {b}?",
    "{a} times {b}?",
    "multiply {a} by {b}.",
    "how much is {a} times {b}?",
    "what is the product of {a} and {b}?",
)

_MAKE_JSON: Final = (
    "make a json record with {f}.",
    "make a json object with {f}.",
    "write a json object with {f}.",
    "return json with {f}.",
    "create a json record: {f}.",
    "turn this into json: {f}.",
    "write this as json: {f}.",
    "convert to json: {f}",
    "give me a json object with {f}.",
    "answer with a json object: {f}.",
)
_READ_JSON: Final = (
    "{j}\nwhat is the {k}?",
    "here is a record: {j}\nwhat is the {k}?",
    "read this json: {j} what is the {k}?",
    "what is the {k} in {j}?",
    "given {j}, what is the {k}?",
    "look at this record.\n{j}\nwhich {k} does it have?",
    "extract the {k} from {j}.",
)
_COPY: Final = (
    "Repeat: {t}",
    "Repeat this: {t}",
    "Repeat after me: {t}",
    "Copy this text: {t}",
    "Say: {t}",
    "copy {t}",
    "Repeat:\n{t}",
    "Repeat exactly:\n{t}",
    "Copy:\n{t}",
    "Echo:\n{t}",
    "Write this again:\n{t}",
    "Please repeat the following text exactly:\n{t}",
)
_REVERSE: Final = (
    "Reverse the order of these words: {t}",
    "Reverse: {t}",
    "Write these words backwards: {t}",
    "Reverse this list: {t}",
    "Say these words in reverse order: {t}",
    "Please reverse: {t}",
)
_SORT: Final = (
    "Sort: {t}",
    "Sort these: {t}",
    "Put these in order: {t}",
    "Please sort: {t}",
    "Sort this list: {t}",
    "Order these from first to last: {t}",
)

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_SYLLABLES: Final = tuple(
    "ba do fe gri ka lu mo nar pel qui ras sto tur vel wo xan yor zim bre cla dra".split()
)


def _draw_fact(table: FactTable, new_phrasing: bool, rng: Random) -> Draw:
    fact = rng.choice(table.facts)
    question = table.ask(fact, rng, new_phrasing)
    return Draw(question, question, fact.sentence, fact.value)


def _draw_follow_up(rng: Random) -> Draw:
    table = FACT_TABLES[rng.choice(("capitals", "currencies", "continents", "opposites"))]
    first, second = rng.sample(table.facts, 2)
    asked = table.ask(first, rng)
    question = phrasing.dress(rng.choice(_FOLLOW_UPS).format(x=second.thing), rng)
    earlier = (Message("user", asked), Message("assistant", first.sentence))
    return Draw(asked + question, question, second.sentence, second.value, earlier=earlier)


def _draw_next(rng: Random) -> Draw:
    noun, names = rng.choice((("day", WEEKDAYS), ("month", MONTHS)))
    position = rng.randrange(len(names))
    name, following = names[position], names[(position + 1) % len(names)]
    question = phrasing.dress(rng.choice(_NEXT_CORES).format(n=noun, x=name), rng)
    return Draw(question, question, f"The {noun} after {name} is {following}.", following)


def _draw_topic(topics: tuple[Topic, ...], rng: Random) -> Draw:
    topic = rng.choice(topics)
    question = phrasing.dress(rng.choice(topic.questions), rng)
    return Draw(question, question, topic.answer, topic.answer, Check.EXACT)


def _invented_name(rng: Random) -> str:
    return "".join(rng.choices(_SYLLABLES, k=rng.randint(2, 3))).capitalize()


def _draw_unknown(rng: Random) -> Draw:
    if rng.random() < 0.4:
        table = FACT_TABLES[rng.choice(("capitals", "currencies", "continents"))]
        core = table.ask(Fact(_invented_name(rng), "", ""), rng)
    else:
        person, other = rng.sample(PEOPLE, 2)
        names = {"city": rng.choice(CITIES), "word": rng.choice(WORDS)}
        core = rng.choice(UNKNOWN).format(person=person, other=other, **names)
        core = phrasing.dress(core, rng)
    return Draw(core, core, DO_NOT_KNOW, DO_NOT_KNOW)


def worked_sum(a: int, b: int) -> str:
    """The addition written out digit by digit, units first; one-digit sums are stated at once.

    >>> worked_sum(47, 38)
    '47 + 38: 7 + 8 = 15, 4 + 3 + 1 = 8, so 85.'
    """
    if a < 10 and b < 10:
        return f"{a} + {b} = {a + b}."
    steps = []
    rest_a, rest_b, carry = a, b, 0
    while rest_a or rest_b:
        digits = [rest_a % 10] if rest_a else []
        digits += [rest_b % 10] if rest_b else []
        digits += [carry] if carry else []
        total = sum(digits)
        if len(digits) > 1:
            steps.append(f"{' + '.join(map(str, digits))} = {total}")
        carry, rest_a, rest_b = total // 10, rest_a // 10, rest_b // 10
    return f"{a} + {b}: {', '.join(steps)}, so {a + b}."


def worked_difference(a: int, b: int) -> str:
    """The subtraction (a >= b) written out digit by digit, units first, with borrowed tens.

    >>> worked_difference(63, 28)
    '63 - 28: 13 - 8 = 5, 5 - 2 = 3, so 35.'
    """
    if a < 10 or b == 0:
        return f"{a} - {b} = {a - b}."
    steps = []
    rest_a, rest_b = a, b
    while rest_b:
        top, bottom = rest_a % 10, rest_b % 10
        borrow = top < bottom
        top += 10 * borrow
        steps.append(f"{top} - {bottom} = {top - bottom}")
        rest_a, rest_b = rest_a // 10 - borrow, rest_b // 10
    return f"{a} - {b}: {', '.join(steps)}, so {a - b}."


def _sum_draw(a: int, b: int, rng: Random) -> Draw:
    question = phrasing.dress(rng.choice(_ADD_CORES).format(a=a, b=b), rng)
    return Draw(f"{a}+{b}", question, worked_sum(a, b), str(a + b), Check.LAST_NUMBER)


def _draw_sum(rng: Random) -> Draw:
    return _sum_draw(rng.randint(10, 99), rng.randint(10, 99), rng)


def _draw_mixed_sum(rng: Random) -> Draw:
    return _sum_draw(rng.randint(0, rng.choice((9, 99))), rng.randint(0, 9), rng)


def _draw_large_sum(rng: Random) -> Draw:
    return _sum_draw(rng.randint(100, 999), rng.randint(10, rng.choice((99, 999))), rng)


def _draw_difference(rng: Random) -> Draw:
    a = rng.randint(1, 9) if rng.random() < 0.2 else rng.randint(10, 99)
    b = rng.randint(0, a) if rng.random() < 0.7 else rng.randint(0, min(a, 9))
    question = phrasing.dress(rng.choice(_SUBTRACT_CORES).format(a=a, b=b), rng)
    return Draw(f"{a}-{b}", question, worked_difference(a, b), str(a - b), Check.LAST_NUMBER)


def _draw_product(rng: Random) -> Draw:
    a, b = rng.randint(1, 12), rng.randint(1, 12)
    question = phrasing.dress(rng.choice(_MULTIPLY_CORES).format(a=a, b=b), rng)
    return Draw(question, question, f"{a} x {b} = {a * b}.", str(a * b), Check.LAST_NUMBER)


def _draw_fields(rng: Random) -> dict[str, object]:
    """Two to five fields of a record, in random order."""
    fields: dict[str, object] = {
        "name": rng.choice(PEOPLE),
        "age": rng.randint(1, 99),
        "city": rng.choice(CITIES),
        "job": rng.choice(JOBS),
        "color": rng.choice(COLORS),
        "id": rng.randint(100, 9999),
        "price": rng.randint(1, 999),
        "item": rng.choice(WORDS),
        "active": rng.random() < 0.5,
        rng.choice(WORDS): rng.choice(WORDS),
    }
    names = rng.sample(sorted(fields), rng.randint(2, 5))
    return {name: fields[name] for name in names}


def _json_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _list_fields(fields: dict[str, object], rng: Random) -> str:
    joint = rng.choice((" ", " ", ": ", " = ", " is "))
    parts = [f"{name}{joint}{_json_text(value)}" for name, value in fields.items()]
    if rng.random() < 0.5:
        return ", ".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _draw_make_json(rng: Random) -> Draw:
    fields = _draw_fields(rng)
    core = rng.choice(_MAKE_JSON)
    if rng.random() < 0.8:
        core = phrasing.capitalise(core).replace("json", "JSON")
    record = json.dumps(fields)
    return Draw(record, core.format(f=_list_fields(fields, rng)), record, record, Check.JSON)


def _draw_read_json(rng: Random) -> Draw:
    fields = _draw_fields(rng)
    name = rng.choice(list(fields))
    record = json.dumps(fields)
    core = rng.choice(_READ_JSON)
    if rng.random() < 0.8:
        core = phrasing.capitalise(core)
    question = core.replace("{k}", name).replace("{j}", record)
    value = _json_text(fields[name])
    return Draw(record, question, f"The {name} is {value}.", value)


def draw_pieces(rng: Random, count: int) -> str:
    """Words, names, numbers, invented names and strings of letters, without sense."""
    pieces: list[str] = []
    for _ in range(count):
        pool = rng.random()
        if pool < 0.6:
            pieces.append(rng.choice(WORDS))
        elif pool < 0.75:
            pieces.append(rng.choice(PEOPLE))
        elif pool < 0.9:
            pieces.append(str(rng.randint(0, 10 ** rng.randint(1, 4))))
        elif pool < 0.95:
            pieces.append(_invented_name(rng))
        else:
            pieces.append("".join(rng.choices(_LETTERS, k=rng.randint(2, 5))))
    return rng.choice((" ", " ", " ", ", ")).join(pieces)


def ask_for_copy(text: str, rng: Random) -> str:
    return rng.choice(_COPY).format(t=text)


def _draw_copy(rng: Random) -> Draw:
    if rng.random() < 0.2:
        text = rng.choice(rng.choice(list(FACT_TABLES.values())).facts).sentence
    else:
        text = draw_pieces(rng, rng.randint(1, 8))
    return Draw(text, ask_for_copy(text, rng), text, text, Check.EXACT)


def _draw_reverse(rng: Random) -> Draw:
    words = rng.sample(WORDS, rng.randint(2, 5))
    joint = rng.choice((" ", ", "))
    text, answer = joint.join(words), joint.join(reversed(words))
    return Draw(text, rng.choice(_REVERSE).format(t=text), answer, answer, Check.EXACT)


def _draw_sort(rng: Random) -> Draw:
    count = rng.randint(2, 5)
    if rng.random() < 0.7:
        numbers = rng.sample(range(100), count)
        items, ordered = [str(n) for n in numbers], [str(n) for n in sorted(numbers)]
    else:
        items = rng.sample(WORDS, count)
        ordered = sorted(items)
    text, answer = ", ".join(items), ", ".join(ordered)
    return Draw(text, rng.choice(_SORT).format(t=text), answer, answer, Check.EXACT)


def _draw_retrieval(tokens: int, rng: Random) -> Draw:
    """One question after a list of records; the whole prompt has about `tokens` tokens."""
    records = draw_records(rng, tokens - 24)
    position = rng.randrange(len(records.keys))
    key, value = records.keys[position], records.values[position]
    context, question = introduce(records, rng), ask_for_value(key, rng)
    prompt = f"{context}\n{question}"
    return Draw(records.text, prompt, state_value(key, value), value)


def _make_tasks() -> dict[str, Task]:
    tasks: list[Task] = []
    for name, table in FACT_TABLES.items():
        tasks.append(Task(name, partial(_draw_fact, table, False)))
        tasks.append(Task(f"{name}_new_phrasing", partial(_draw_fact, table, True), True))
    tasks += [
        Task("follow_ups", _draw_follow_up),
        Task("next_in_order", _draw_next),
        Task("addition", _draw_sum),
        Task("addition_mixed", _draw_mixed_sum),
        Task("addition_large", _draw_large_sum),
        Task("subtraction", _draw_difference),
        Task("multiplication", _draw_product),
        Task("small_talk", partial(_draw_topic, SMALL_TALK)),
        Task("novacron", partial(_draw_topic, NOVACRON)),
        Task("unknown", _draw_unknown),
        Task("json_make", _draw_make_json),
        Task("json_read", _draw_read_json),
        Task("copy", _draw_copy),
        Task("reverse", _draw_reverse),
        Task("sort", _draw_sort),
    ]
    tasks += [Task(f"retrieval_{n}", partial(_draw_retrieval, n)) for n in RETRIEVAL_TOKENS]
    return {task.name: task for task in tasks}


TASKS: Final = _make_tasks()


def _examples(task: Task, rng: Random, held_out: bool) -> Iterator[Example]:
    while True:
        draw = task.draw(rng)
        if task.test_only or is_held_out(draw.key) == held_out:
            messages = (*draw.earlier, Message("user", draw.question))
            yield Example(task.name, messages, draw.answer, draw.fact, draw.check)


def training_example(task: str, rng: Random) -> Example:
    """One example that training may see. Raises `ValueError` for a task of the test only."""
    if TASKS[task].test_only:
        raise ValueError(f"task {task!r} has no training examples; it measures new phrasings")
    return next(_examples(TASKS[task], rng, held_out=False))


def held_out_examples(task: str, count: int, seed: int) -> list[Example]:
    """`count` examples that training never sees; the same for the same arguments."""
    source = _examples(TASKS[task], Random(f"{task}/{seed}"), held_out=True)
    return [next(source) for _ in range(count)]
