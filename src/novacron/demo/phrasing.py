"""Ways to ask: patterns for questions about a property, and what people put around a question.

A question is a core ("what is {xs} {n}?") with a carrier before and after it and a style of
writing. Every fact task keeps some cores for the test, so that new phrasings can be measured.
"""

from __future__ import annotations

import re
from random import Random
from typing import Final

# n is the property ("capital"), x the thing ("France"), xs its possessive ("France's").
PROPERTY_CORES: Final = (
    "what is the {n} of {x}?",
    "what's the {n} of {x}?",
    "what is {xs} {n}?",
    "what's {xs} {n}?",
    "what is {xs} {n} called?",
    "what is the {n} of {x} called?",
    "what is the name of {xs} {n}?",
    "name the {n} of {x}.",
    "name {xs} {n}.",
    "tell me the {n} of {x}.",
    "tell me what the {n} of {x} is.",
    "tell me {xs} {n}.",
    "give me the {n} of {x}.",
    "{n} of {x}?",
    "the {n} of {x}?",
    "{xs} {n}?",
    "do you know the {n} of {x}?",
    "do you know {xs} {n}?",
    "can you tell me the {n} of {x}?",
    "can you tell me what {xs} {n} is?",
    "could you tell me {xs} {n}?",
    "could you name the {n} of {x}?",
    "i want to know the {n} of {x}.",
    "i would like to know {xs} {n}.",
    "i wonder what the {n} of {x} is.",
    "i forgot the {n} of {x}. what is it?",
    "i forgot {xs} {n}. can you tell me?",
    "think of {x}. what is its {n}?",
    "i am reading about {x}. what is its {n}?",
    "remind me of the {n} of {x}.",
    "remind me what {xs} {n} is.",
    "what {n} does {x} have?",
    "state the {n} of {x}.",
    "write down the {n} of {x}.",
    "i need the {n} of {x}.",
    "my question is about {x}. what is the {n}?",
    "what do you call the {n} of {x}?",
    "{x}: what is the {n}?",
    "about {x}: what is its {n}?",
    "complete the sentence: the {n} of {x} is",
    "the {n} of {x} is",
    "let us talk about {x}. what is its {n}?",
    "can you remember the {n} of {x}?",
    "i am looking for the {n} of {x}.",
    "i was asked for the {n} of {x}. what should i say?",
    "a quiz asks for {xs} {n}. what is the answer?",
    "answer this: what is the {n} of {x}?",
    "my friend asked me about {x}. what is its {n}?",
    "what would be the {n} of {x}?",
    "i cannot remember the {n} of {x}.",
)

CAPITAL_CORES: Final = (
    "which city is the capital of {x}?",
    "what city is the capital of {x}?",
    "which city is {xs} capital?",
    "what is the capital city of {x}?",
    "what is {xs} capital city?",
    "i am going to {x}. what is the capital there?",
    "which city is the capital city of {x}?",
    "in {x}, which city is the capital?",
    "my aunt lives in {x}. what is its capital city?",
    "what is {xs} capital city called?",
)

CURRENCY_CORES: Final = (
    "which currency is used in {x}?",
    "what currency is used in {x}?",
    "what currency does {x} use?",
    "what money do people use in {x}?",
    "how do people pay in {x}?",
    "i am going to {x}. which currency do i need?",
    "what money do they use in {x}?",
    "in {x}, which currency is used?",
    "my aunt lives in {x}. what is the currency there?",
    "with what currency do people pay in {x}?",
)

CAPITAL_OWNER_CORES: Final = (
    "which country has {x} as its capital?",
    "what country has {x} as its capital?",
    "{x} is the capital of which country?",
    "{x} is the capital of what country?",
    "of which country is {x} the capital?",
    "which country's capital is {x}?",
    "which country has the capital {x}?",
    "{x} is the capital of",
    "complete the sentence: {x} is the capital of",
    "what is {x} the capital of?",
    "the capital is {x}. which country is it?",
    "name the country whose capital is {x}.",
    "tell me which country has {x} as its capital.",
    "i am in {x}, a capital. which country am i in?",
    "do you know which country {x} is the capital of?",
    "to which country does the capital {x} belong?",
)

CONTINENT_CORES: Final = (
    "on which continent is {x}?",
    "which continent is {x} in?",
    "what continent is {x} in?",
    "what continent is {x} on?",
    "in which part of the world is {x}?",
    "where is {x}?",
    "where in the world is {x}?",
    "where is {x} located?",
    "on what continent is {x} located?",
    "{x} is on which continent?",
    "{x} is in which continent?",
    "tell me where {x} is.",
    "tell me the continent of {x}.",
    "what is the continent of {x}?",
    "name the continent of {x}.",
    "do you know where {x} is?",
    "i am going to {x}. which continent is it on?",
    "to which continent does {x} belong?",
    "which continent does {x} belong to?",
    "{x} belongs to which continent?",
)

_PREFIXES: Final = (
    "please tell me: ",
    "hello, ",
    "hello! ",
    "hi, ",
    "hi! ",
    "hey, ",
    "quick question: ",
    "question: ",
    "i have a question. ",
    "i have a question for you: ",
    "can you help me? ",
    "can you answer this? ",
    "so, ",
    "ok, ",
    "tell me, ",
    "excuse me, ",
    "one more thing: ",
    "now, ",
    "sorry to bother you, ",
    "just curious: ",
    "good morning. ",
    "i need some help. ",
    "for my homework: ",
    "please: ",
)

_SUFFIXES: Final = (
    " please.",
    " thanks.",
    " thanks!",
    " thank you.",
    " thank you!",
    " please answer briefly.",
    " answer in one sentence.",
    " i need it for school.",
    " i would like to know.",
    " just a short answer.",
    " please be brief.",
)

_SENTENCE_START: Final = re.compile(r"(^|[.?!] )([a-z])")
_FIRST_PERSON: Final = re.compile(r"\bi\b")


def possessive(name: str) -> str:
    return f"{name}'" if name.endswith("s") else f"{name}'s"


def capitalise(text: str) -> str:
    """Text with a capital letter at the start of every sentence and in the word "I"."""
    text = _FIRST_PERSON.sub("I", text)
    return _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)


def dress(core: str, rng: Random) -> str:
    """A core as somebody may write it: with a carrier, in lower case, without its end mark."""
    text = core
    if rng.random() < 0.4:
        text = rng.choice(_PREFIXES) + text
    if text[-1] in "?." and rng.random() < 0.25:
        text += rng.choice(_SUFFIXES)
    style = rng.random()
    if style < 0.15:
        text = text.lower()
    elif style < 0.95:
        text = capitalise(text)
    if text[-1] in "?.!" and rng.random() < 0.15:
        text = text[:-1]
    return text


def split_cores(
    cores: tuple[str, ...], every: int, offset: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(trained, new): every `every`-th core, counted from `offset`, is kept for the test."""
    trained = tuple(core for i, core in enumerate(cores) if i % every != offset)
    new = tuple(core for i, core in enumerate(cores) if i % every == offset)
    return trained, new
