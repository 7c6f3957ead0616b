"""Reads transcripts of videos from SRT or WebVTT files, cleans them, and cuts them to a span."""

from __future__ import annotations

import dataclasses
import html
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vidseek_media.errors import InputRejected
from vidseek_media.guards import mended_text
from vidseek_media.records import Rejection
from vidseek_media.text.subtitle_files import find_subtitles

MAX_BYTES = 64 * 2**20
"""A larger file is no transcript."""

_TIME = r"(?:(\d{1,4})\s*:\s*)?(\d{1,2})\s*:\s*(\d{1,2})(?:\s*[.,:;]\s*(\d{1,9}))?"
_ARROW = r"(?:[-\u2013\u2014=]{1,3}\s?>|[\u2192\u27f6\u2794])"
_TIMING = re.compile(rf"^\s*{_TIME}\s*{_ARROW}\s*{_TIME}(?:\s(?P<rest>.*))?$")
_CLOCK = r"(?:\d+\s?[:;.]\s?\w+\s?[:;.]\s?\d+(?:[.,:;]\d+)?|\d+\s?:\s?\d+[.,]\d+)"
_LOOKS_TIMED = re.compile(
    rf"^\s*-?\d[\d\s.,:;]*-->|^\s*-?\d[\d\s.,;]*:[\d\s.,:;]*{_ARROW}|-->\s*-?\d+\s*:"
    rf"|^[^\w-]*(?:\d+\s+)?\w?{_CLOCK}\W+(?:\w{{1,4}}\W+)?{_CLOCK}|^\s*\d+:\d\d:\d\d(?:[.,]\d+)?\s*$"
)
"""A line of times that cannot be read: with an arrow, of two times to the second with a short word between them at
most (`to`, the `gt` of an escaped arrow), or one time alone. It is never text."""
_SETTING = re.compile(r"[A-Za-z]\w*:\S*")
"""What may follow the times: a place on the screen."""
_UNSEEN = re.compile("[\ufeff\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
_MARKUP = re.compile(
    r"</?(?:b|i|u|s|c|v|font|span|lang|ruby|rt|rp)(?:[.\s][^<>]*)?/?>|<\d[\d:.]*>|\{\\[^{}]*\}", re.IGNORECASE
)
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9][^{}]*\}.*?(?=\{[^{}]*\\p0|$)")
"""What ASS draws: coordinates, and no text."""
_BREAK = re.compile(r"<br\s*/?>|\\[Nn](?=[A-Z\W])", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z]{2,31});", re.IGNORECASE)
_BLOCK = re.compile(r"^(?:NOTE|STYLE|REGION)(?:\s|$)")
"""Blocks of WebVTT that are no cues."""

_MAX_WHY = 5
"""Broken cues of one file that are named one by one; the rest is counted."""

_MAX_PAUSE_MS = 50
"""Between two cues of rolling captions: they follow each other at once, or 10 ms later."""


@dataclass(frozen=True)
class Cue:
    """The text that is spoken in `[start_ms, end_ms)`."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    """Plain text, none of them blank."""


@dataclass(frozen=True)
class BrokenCue:
    """A cue that cannot be used."""

    line: int
    """Of the file, from 1: that of its times."""
    reason: str


def read_transcripts(paths: Mapping[str, Path], videos: Mapping[str, str]) -> tuple[dict[str, list[Cue]], list[Rejection]]:
    """Cues by video_id of the videos that have a transcript, and the files and cues that cannot be read.

    Of the files beside a video (`find_subtitles`), the first is its transcript.

    Args:
        paths: Of the files, by uri.
        videos: video_id by uri.
    """
    found: dict[str, list[Cue]] = {}
    refused: list[Rejection] = []
    files = find_subtitles(paths).beside
    for uri, video_id in videos.items():
        if not files[uri] or video_id in found:
            continue
        path = files[uri][0].path
        name = PurePosixPath(uri).with_name(path.name).as_posix()
        try:
            found[video_id], broken = read_transcript(path)
        except InputRejected as error:
            refused.append(Rejection(name, "ingest", error.message, "transcript", code=error.code))
        else:
            refused += _rejections_of(name, broken)
    return found, refused


def read_transcript(path: Path) -> tuple[list[Cue], list[BrokenCue]]:
    """Read the cues of an SRT or WebVTT file in order of time, and the cues that cannot be used.

    Raises:
        InputRejected: the file is neither UTF-8 nor UTF-16, is too large, or holds no cue.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputRejected(f"has {path.stat().st_size} bytes, wanted at most {MAX_BYTES}", code="transcript-too-large")
        text = _decoded(path.read_bytes())
    except OSError as error:
        raise InputRejected(f"cannot be read: {error.strerror}", code="file-unreadable") from error
    cues, broken = parse_transcript(text)
    if not cues:
        first = f"; line {broken[0].line}: {broken[0].reason}" if broken else ""
        raise InputRejected(
            f"holds no cue with a time like 00:00:01,000 --> 00:00:02,500{first}", code="transcript-without-cues",
        )
    return cues, broken


def _decoded(content: bytes) -> str:
    try:
        encoding = _utf_16_of(content)
        if encoding and "-->" in (text := content.decode(encoding, "replace")):
            return text
        return content.decode("utf-8-sig", "surrogatepass")  # Halves of characters are dropped from the text.
    except UnicodeDecodeError as error:
        raise InputRejected(
            f"is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}; save it as UTF-8",
            code="transcript-not-utf8",
        ) from error


def _utf_16_of(content: bytes) -> str:
    """Return the UTF-16 that a file seems to be in, empty if none: by its mark, or by where the first arrow stands."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    places = ((name, content.find("-->".encode(name))) for name in ("utf-16-le", "utf-16-be"))
    return next((name for name, place in places if place >= 0 and place % 2 == 0), "")


def parse_transcript(text: str) -> tuple[list[Cue], list[BrokenCue]]:
    """Parse the cues of an SRT or WebVTT text in order of time, and the cues that cannot be used; markup is dropped.

    A cue is a line of times and the text up to the next one, without the number or name that belongs to the next. A blank
    line
    ends a WebVTT cue (https://www.w3.org/TR/webvtt1/). SRT has no standard, and its texts may contain blank lines.
    """
    lines = re.split(r"\r+\n|\n|\r", text.replace("\ufeff", ""))
    timings = {number: plain for number, line in enumerate(lines) if _is_timed(plain := _as_timing(line))}
    is_vtt, starts = lines[0].strip().upper().startswith("WEBVTT"), list(timings)
    before = [line for line in lines[: starts[0] if starts else 0] if line.strip()]
    is_numbered = bool(before) and before[-1].strip().isdecimal()
    said_of = _said_in_vtt if is_vtt else _said_in_srt
    cues: list[Cue] = []
    broken: list[BrokenCue] = []
    if not is_vtt and len(before) > is_numbered:
        broken.append(BrokenCue(lines.index(before[0]) + 1, "a text before the first times"))
    for start, end in itertools.pairwise([*starts, len(lines)]):
        said, lost = said_of(lines[start + 1 : end], is_numbered=is_numbered, is_last=end == len(lines))
        said = [*_said_beside(timings[start]), *said]
        try:
            if said or not _TIMING.match(timings[start]):
                cues.append(Cue(*_span_of(timings[start]), tuple(said)))
        except InputRejected as error:
            broken.append(BrokenCue(start + 1, error.message))
        if lost is not None:
            broken.append(BrokenCue(start + 2 + lost, "a text after a blank line, without times"))
    return without_rolled(sorted(cues, key=lambda cue: (cue.start_ms, cue.end_ms))), broken


def without_rolled(cues: Sequence[Cue]) -> list[Cue]:
    """Reduce rolling captions to one cue for each line, at the time at which the line is new; other cues stay.

    YouTube's automatic captions show two lines: the present one, and the previous one above it. Every line is in the file
    two or
    three times. Captions roll if most cues begin with the last lines of the previous cue, without a pause.
    """
    numbers = [_num_repeated(before, cue) for before, cue in itertools.pairwise(cues)]
    if 2 * sum(number > 0 for number in numbers) <= len(numbers):
        return list(cues)
    kept = [dataclasses.replace(cue, lines=cue.lines[number:]) for number, cue in zip([0, *numbers], cues, strict=True)]
    return [cue for cue in kept if cue.lines]


def _num_repeated(before: Cue, cue: Cue) -> int:
    """Return how many first lines of `cue` repeat the last lines of `before`, which ends where it begins."""
    if abs(cue.start_ms - before.end_ms) > _MAX_PAUSE_MS:
        return 0
    most = min(len(before.lines), len(cue.lines))
    return next((number for number in range(most, 0, -1) if before.lines[-number:] == cue.lines[:number]), 0)


def _as_timing(line: str) -> str:
    """`line` as a line of times would be: without marks of direction, with full-width digits and signs as plain ones."""
    return unicodedata.normalize("NFKC", _UNSEEN.sub("", line))


def _is_timed(line: str) -> bool:
    return _TIMING.match(line) is not None or _LOOKS_TIMED.search(line) is not None


def _said_beside(timing: str) -> Iterator[str]:
    """Yield the text that some writers put behind the times."""
    match = _TIMING.match(timing)
    if match and match["rest"] and not all(map(_SETTING.fullmatch, match["rest"].split())):
        yield from plain_lines([match["rest"]])


def said_in(cues: Iterable[Cue], start_ms: int, end_ms: int, *, max_characters: int) -> str:
    """Return the text spoken in a span: the cues whose middle lies in it. A line that repeats the previous one is left out.

    Args:
        cues: Cues in order of time.
        start_ms: Start of the span in milliseconds.
        end_ms: End of the span in milliseconds, exclusive.
        max_characters: Longest text; it is cut between words.
    """
    said: list[str] = []
    for cue in cues:
        if start_ms <= (cue.start_ms + cue.end_ms) // 2 < end_ms:
            said += cue.lines
    text = " ".join(line for line, _ in itertools.groupby(said))
    if len(text) <= max_characters:
        return text
    return text[: max_characters + 1].rsplit(" ", 1)[0][:max_characters]


def _said_in_srt(lines: list[str], *, is_numbered: bool, is_last: bool) -> tuple[list[str], None]:
    """Return the text of a cue, of the lines up to the next line of times; the number of the next cue is none of it."""
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    is_broken_off = is_last and len(lines) > 1 and not lines[-2].strip()  # A number, and no cue any more.
    if is_numbered and (not is_last or is_broken_off) and lines and lines[-1].strip().isdecimal():
        lines = lines[:-1]
    return list(plain_lines(lines)), None


def _said_in_vtt(lines: list[str], *, is_numbered: bool, is_last: bool) -> tuple[list[str], int | None]:
    """Return the text of a cue, of the lines up to the next line of times; and where text stands that belongs to no cue."""
    blank = next((number for number, line in enumerate(lines) if not line), len(lines))  # A space is a line of text.
    said = lines[:blank]
    if blank == len(lines) and is_numbered and not is_last and said and said[-1].strip().isdecimal():
        said = said[:-1]
    starts = [n for n in range(blank + 1, len(lines)) if lines[n].strip() and not lines[n - 1].strip()]
    for start in starts:
        end = next((n for n in range(start, len(lines)) if not lines[n].strip()), len(lines))
        names_the_next = end == len(lines) and not is_last and end == start + 1
        if not _BLOCK.match(lines[start]) and not names_the_next:
            return list(plain_lines(said)), start
    return list(plain_lines(said)), None


def plain_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines of subtitles as plain text, without markup; blank ones are left out."""
    for line in lines:
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), _MARKUP.sub("", _DRAWING.sub("", _BREAK.sub(" ", line))))
        if plain := mended_text(text):
            yield plain


def _span_of(line: str) -> tuple[int, int]:
    match = _TIMING.match(line)
    if match is None:
        raise InputRejected(f"its times cannot be read: {line.strip()[:60]!r}", code="cue-malformed")
    start_ms, end_ms = _ms_of(match.groups()[:4]), _ms_of(match.groups()[4:8])
    if start_ms >= end_ms:
        raise InputRejected(f"it ends before it begins: {line.strip()[:60]!r}", code="cue-malformed")
    return start_ms, end_ms


def _ms_of(parts: tuple[str | None, ...]) -> int:
    hours, minutes, seconds, fraction = (part or "0" for part in parts)
    if int(minutes) > 59 or int(seconds) > 59:
        raise InputRejected(f"{minutes} minutes and {seconds} seconds are no time", code="cue-malformed")
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(fraction.ljust(3, "0")[:3])


def _rejections_of(name: str, broken: list[BrokenCue]) -> Iterator[Rejection]:
    for each in broken[:_MAX_WHY]:
        yield Rejection(f"{name}:{each.line}", "ingest", f"a cue is left out: {each.reason}", "cue", code="cue-malformed")
    if len(broken) > _MAX_WHY:
        num_more = len(broken) - _MAX_WHY
        reason = f"{num_more} more cues are left out, the last in line {broken[-1].line}"
        yield Rejection(name, "ingest", reason, "cue", code="cue-malformed")
