"""Queries in words over the programmes of `word_archive`, each with the programmes and times that answer it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bench.searching.word_archive import Line, Programme

PER_KIND = {
    "name": 25, "phrase": 20, "phrase over two texts": 10, "number": 25, "misspelt": 25, "word form": 20,
    "screen and speech": 15, "in a sentence": 15, "other language": 25, "other spelling": 20,
}
"""200 queries."""

Answers = dict[str, tuple[tuple[int, int], ...]]
"""By name of the programme, the spans in which the words stand."""


@dataclass(frozen=True)
class WordQuery:
    """A query whose answers are known."""

    kind: str
    text: str
    answers: Answers


def letters_of(text: str) -> str:
    """Return the letters and digits of a text with single spaces between words, without case, accents and other signs."""
    bare = "".join(
        char for char in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(char)
    ).translate({ord("ł"): "l", ord("ø"): "o", ord("đ"): "d"})
    return " ".join(re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z0-9])['’,.](?=[a-z0-9])", "", bare)))


def queries(made: Sequence[Programme], *, seed: int) -> list[WordQuery]:
    """Return 200 queries. Whether a programme is an answer is looked up in what is written in all of them."""
    rng = np.random.default_rng(seed)
    english = [each for each in made if each.language == "en"]
    makers: dict[str, Callable[[], Iterator[tuple[str, list[str]]]]] = {
        "name": lambda: _names(english, rng), "phrase": lambda: _phrases(english, rng),
        "phrase over two texts": lambda: _crossing(english, rng), "number": lambda: _numbers(english, rng),
        "misspelt": lambda: _misspelt(english, rng), "word form": lambda: _forms(english),
        "screen and speech": lambda: _both(english, rng), "in a sentence": lambda: _sentences(english, rng),
        "other language": lambda: _foreign(made),
        "other spelling": lambda: _spellings(english, rng),
    }
    found: list[WordQuery] = []
    for kind, count in PER_KIND.items():
        texts: dict[str, WordQuery] = {}
        for text, wanted in makers[kind]():
            if len(texts) == count:
                break
            if answers := answers_of(made, wanted):
                texts.setdefault(text, WordQuery(kind, text, answers))
        found += texts.values()
    return found


def answers_of(made: Sequence[Programme], wanted: Sequence[str]) -> Answers:
    """Return the programmes in which all of `wanted` stand, with the spans of the lines that have one of them.

    Args:
        made: All programmes.
        wanted: Words or phrases; one that begins with `~` is part of a word, or written without spaces.
    """
    found: Answers = {}
    for each in made:
        spans = [_spans(each, one) for one in wanted]
        if all(spans):
            found[each.name] = tuple(sorted({span for of_one in spans for span in of_one}))
    return found


def _spans(each: Programme, wanted: str) -> list[tuple[int, int]]:
    is_part, one = wanted.startswith("~"), letters_of(wanted.removeprefix("~"))
    here = [
        line for line in each.lines if (
            one.replace(" ", "") in letters_of(line.text).replace(" ", "") if is_part
            else f" {one} " in f" {letters_of(line.text)} "
        )
    ]
    if here:
        return [(line.start_ms, line.end_ms) for line in here]
    return [span for field in ("speech", "ocr") for span in _over_two(each.of(field), one)]


def _over_two(lines: Sequence[Line], one: str) -> Iterator[tuple[int, int]]:
    for before, after in pairwise(lines):
        if f" {one} " in f" {letters_of(before.text)} {letters_of(after.text)} ":
            yield before.start_ms, after.end_ms


def _drawn(english: Sequence[Programme], rng: np.random.Generator) -> Iterator[Programme]:
    for _ in range(20):
        for number in rng.permutation(len(english)).tolist():
            yield english[number]


def _person(each: Programme) -> str:
    return each.of("ocr")[0].text


def _names(english: Sequence[Programme], rng: np.random.Generator) -> Iterator[tuple[str, list[str]]]:
    for number, each in enumerate(_drawn(english, rng)):
        first, last = _person(each).split()
        role = each.of("ocr")[1].text.split(",")[0].split()[-1]
        if number % 3 == 0:
            yield f"{last} {role}".lower(), [last, role]
        else:
            yield _person(each) if number % 2 else _person(each).lower(), [first, last]


def _phrases(english: Sequence[Programme], rng: np.random.Generator) -> Iterator[tuple[str, list[str]]]:
    for number, each in enumerate(_drawn(english, rng)):
        if number % 3 == 0:
            yield f'"{_person(each)}"', [_person(each)]
            continue
        lines = [line.text for line in each.of("speech" if number % 3 == 1 else "ocr")]
        words = letters_like(lines[0 if number % 3 == 1 else 1])
        start = int(rng.integers(max(1, len(words) - 3)))
        phrase = " ".join(words[start : start + 4])
        yield f'"{phrase}"', [phrase]


def letters_like(text: str) -> list[str]:
    """Return the words of a text as they are written, without signs around them."""
    return [word.strip(",.") for word in text.split()]


def _crossing(english: Sequence[Programme], rng: np.random.Generator) -> Iterator[tuple[str, list[str]]]:
    for number, each in enumerate(_drawn(english, rng)):
        first, second = (letters_like(line.text) for line in each.of("speech")[number % 2 :][:2])
        phrase = " ".join([*first[-2:], *second[:2]])
        yield f'"{phrase}"', [phrase]


def _numbers(english: Sequence[Programme], rng: np.random.Generator) -> Iterator[tuple[str, list[str]]]:
    for each in _drawn(english, rng):
        figure = each.of("ocr")[2].text
        what, number = figure.rsplit(" ", 1) if "billion" not in figure and " km" not in figure else figure.split(" ")[:2]
        thousands = re.fullmatch(r"£?(\d+),(\d+)", number)
        if thousands:
            sign = str(rng.choice(["", ",", ".", " "]))
            yield f"{what} {thousands[1]}{sign}{thousands[2]}", [what, number]
        elif rng.random() < 0.5:
            yield number, [number]
        else:
            yield f"{what} {number}", [what, number]


def misspell(word: str, rng: np.random.Generator) -> str:
    """Return a word with one edit behind its first letter."""
    at, letter = int(rng.integers(1, len(word) - 1)), str(rng.choice(list("aeirnstlo")))
    how = int(rng.integers(4))
    if how == 0:
        return word[:at] + letter + word[at:]
    if how == 1:
        return word[:at] + word[at + 1 :]
    if how == 2 or word[at] == word[at + 1]:
        return word[:at] + (letter if letter != word[at] else "z") + word[at + 1 :]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _misspelt(english: Sequence[Programme], rng: np.random.Generator) -> Iterator[tuple[str, list[str]]]:
    for number, each in enumerate(_drawn(english, rng)):
        lines = each.lines[:2] if number % 2 else each.of("speech")[:1]
        words = [word for line in lines for word in re.findall(r"[^\W\d_]{5,}", line.text)]
        if len(words) < 2:
            continue
        one, other = rng.permutation(len(words))[:2].tolist()
        yield f"{misspell(words[one].lower(), rng)} {words[other].lower()}", [f"~{words[one]}", f"~{words[other]}"]


_FORMS = {
    "announce ceasefire": ["announced", "ceasefire"], "announcing ceasefire": ["announced", "ceasefire"],
    "negotiator referendum": ["negotiators", "referendum"], "negotiation cathedral": ["negotiators", "cathedral"],
    "surgeon turbines": ["surgeons", "turbine"], "volunteer shipwrecks": ["volunteers", "shipwreck"],
    "engineer comets": ["engineers", "comet"], "engineering stadium": ["engineers", "stadium"],
    "referees tournament": ["referee", "tournament"], "farmer vineyards": ["farmers", "vineyard"],
    "farming symphony": ["farmers", "symphony"], "astronaut pipeline": ["astronauts", "pipeline"],
    "orchestras comet": ["orchestra", "comet"], "firefighter vineyard": ["firefighters", "vineyard"],
    "archaeologist verdict": ["archaeologists", "verdict"], "archaeology stadium": ["archaeologists", "stadium"],
    "committees pipelines": ["committee", "pipeline"], "beekeeper ceasefires": ["beekeepers", "ceasefire"],
    "beekeeping turbine": ["beekeepers", "turbine"], "photograph comet committee": ["photographed", "comet", "committee"],
    "evacuation firefighters": ["evacuated", "firefighters"], "cancellation farmers": ["cancelled", "farmers"],
    "restoring cathedral surgeons": ["restored", "cathedral", "surgeons"], "harvest orchestra": ["harvested", "orchestra"],
    "rehearsal astronauts": ["rehearsed", "astronauts"], "discovery beekeepers": ["discovered", "beekeepers"],
    "postponing volunteers": ["postponed", "volunteers"], "repairs archaeologists": ["repaired", "archaeologists"],
    "abandoning referee": ["abandoned", "referee"], "questions engineers": ["questioned", "engineers"],
    "ministers transport": ["Minister", "Transport"], "economists cambridge": ["Economist", "Cambridge"],
    "biologists rotterdam": ["Biologist", "Rotterdam"], "architecture wellington": ["Architect", "Wellington"],
}


def _forms(english: Sequence[Programme]) -> Iterator[tuple[str, list[str]]]:
    yield from _FORMS.items()


def _both(english: Sequence[Programme], rng: np.random.Generator) -> Iterator[tuple[str, list[str]]]:
    for number, each in enumerate(_drawn(english, rng)):
        last, said = _person(each).split()[1], each.of("speech")[0].text.split()
        words = [last, said[-1]] if number % 2 else [each.of("ocr")[1].text.split(",")[0].split()[-1], *said[-3:]]
        yield " ".join(words).lower(), words


def _sentences(english: Sequence[Programme], rng: np.random.Generator) -> Iterator[tuple[str, list[str]]]:
    for number, each in enumerate(_drawn(english, rng)):
        (role, place), said = each.of("ocr")[1].text.split(", "), each.of("speech")[0].text.split()
        who, did = said[2:-3], said[-3:]
        yield (
            (f"who is the {role.lower()} from {place}?", [role, place]),
            (f"show me the part where {' '.join(who)} {' '.join(did)}", [" ".join(who), did[0], did[2]]),
            (f"the interview with {_person(each)} about the {did[2]}", [_person(each).split()[1], did[2]]),
        )[number % 3]


def _foreign(made: Sequence[Programme]) -> Iterator[tuple[str, list[str]]]:
    yield from (
        ("Straßenbahn Köln", ["Straßenbahn", "Köln"]), ("strassenbahn", ["Straßenbahn"]),
        ("Bürgermeisterin Schwimmbad", ["Bürgermeisterin", "Schwimmbad"]), ("gemusehandler", ["Gemüsehändler"]),
        ('"riesige Kürbisse"', ["riesige Kürbisse"]), ("election presidentielle", ["Élection", "présidentielle"]),
        ("Besançon théâtre", ["Besançon", "théâtre"]), ("chateau chenonceau", ["Château", "Chenonceau"]),
        ("rivière glacée", ["rivière", "glacée"]), ("święto żeglarzy", ["Święto", "żeglarzy"]),
        ("zrodlo rzeki", ["źródło", "rzeki"]), ("营业收入", ["~营业收入"]), ("发电机", ["~发电机"]),
        ("天气预报", ["~天气预报"]), ("厨房火灾", ["~厨房", "~火灾"]), ("天気予報", ["~天気予報"]),
        ("博物館", ["~博物館"]), ("彗星", ["~彗星"]),
        ("корабль на дне моря", ["корабль", "на дне", "моря"]), ("Строители мост", ["строители", "мост"]),
        ("المتحف الجديد", ["المتحف", "الجديد"]), ("ספינה עתיקה", ["ספינה", "עתיקה"]), ("박물관", ["~박물관"]),
        ("พิพิธภัณฑ์", ["~พิพิธภัณฑ์"]), ("μουσειο καταιγιδα", ["μουσείο", "καταιγίδα"]),
    )


def _spellings(english: Sequence[Programme], rng: np.random.Generator) -> Iterator[tuple[str, list[str]]]:
    """Yield names and words as people type them: without accents, hyphens, apostrophes and spaces, in capitals."""
    for number, each in enumerate(_drawn(english, rng)):
        first, last = _person(each).split()
        how, place = number % 5, each.of("ocr")[1].text.split(", ")[1]
        if how == 0 and re.search(r"['-]", last):
            yield re.sub(r"['-]", "", f"{first} {last}").lower(), [first, last]
        elif how == 1 and "-" in last:
            yield f"{first} {last.replace('-', ' ')}".upper(), [first, last]
        elif how == 2 and "'" in last:
            yield f"{first} {last.replace(chr(39), '’')}", [first, last]
        elif how == 3 and "co-operation" in each.of("speech")[1].text:
            did = each.of("speech")[0].text.split()[-1]
            typed = str(rng.choice(["cooperation", "co operation"]))
            yield f"{typed} {did}", ["~cooperation", did]
        elif how == 4 and not last.isascii():
            yield letters_of(f"{first} {last}").upper(), [first, last]
        elif how == 4 and not place.isascii():
            yield letters_of(f"{last} {place}"), [last, place]
        elif how == 0:
            yield f"{first}{last}".lower(), [first, last]
