"""Captions clips with a language model: which clips to ask about, the expected cost, and the result."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from vidseek_media.decoding.excerpt import cut_excerpt
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.frame_store.stored_clips import StoredClip, read_jpegs, stored_clips
from vidseek_media.records import TRY_AGAIN, Clip, Refusal, Rejection, Video
from vidseek_media.sources.originals import original
from vidseek_media.tables import FRAMES, read_table
from vidseek_training.captioning.asking import ask_all, longest_answer
from vidseek_training.captioning.budget import Subject, basis_of, most_usd
from vidseek_training.captioning.journal import Entry, Journal, Tally, open_journal, read_journal
from vidseek_training.captioning.opening import open_provider
from vidseek_training.captioning.prompt import SCHEMA, prompt_hash, prompt_of
from vidseek_training.captioning.provider import Request
from vidseek_training.captioning.registry import caption_provider
from vidseek_training.captioning.settings import CAPTION_DETAILS, LlmSettings

CHARACTERS_PER_TOKEN = 4
"""Of English prompts, roughly; a guess that the first answer corrects."""
GUESSED_TOKENS_OUT = 150
"""Of one answer, before a model has given one."""
GUESSED_THOUGHTS: Mapping[str, int] = {"minimal": 100, "low": 300, "medium": 1000, "high": 3000}
"""Tokens of thoughts before an answer, likewise, by what the request says of thinking."""
GUESSED_PICTURE_TOKENS = 258
"""Where the provider has no rule."""


@dataclass(frozen=True)
class Written:
    """The captions of one clip."""

    clip: Clip
    texts: Mapping[str, str]
    """By detail: those that are kept, each text once."""
    writers: Mapping[str, str]
    """By detail: provider, model, hash of the prompt, detail."""
    cost_usd: float
    """Of the clip; nothing where another clip of the same frames has paid."""
    model: str
    """That answered, by the provider's word; empty where it did not say."""


@dataclass(frozen=True)
class LlmReport:
    """num_clips = num_captioned + num_rejected + num_waiting."""

    num_clips: int
    """That no earlier source captions, of the wanted cuts, with frames, unmarked; at most `max_clips`."""
    num_marked: int
    """Further clips, black, flat or frozen, that were not shown to the model."""
    num_cached: int
    """Of num_clips, those that earlier runs had paid for."""
    num_captioned: int
    num_rejected: int
    num_waiting: int
    """Clips that `limit` left for another run."""
    cost_usd: float
    """Of this run."""
    spent_usd: float
    """Of all runs, with what requests may have cost whose answer was never seen."""
    num_broken: int = 0
    """Lines of the journal that a death tore, and that were passed over."""


@dataclass(frozen=True)
class Estimate:
    """The expected cost of a run; nothing was asked."""

    num_clips: int
    num_marked: int
    num_cached: int
    num_to_ask: int
    tokens_in: int
    tokens_out: int
    cost_usd: float
    at_most_usd: float
    """Every answer as long as it may be; bad answers, which are asked for twice, left out."""
    spent_usd: float
    budget_usd: float
    estimated_by: str


@dataclass(frozen=True)
class Captioner:
    """A language model as a writer of captions, with its cache."""

    settings: LlmSettings
    frames_dir: Path
    """What the stage `frames` wrote."""
    journal_dir: Path
    """Where the journal of all requests lies, outside the pipeline."""
    path_of: Callable[[str], Path] | None = None
    """Where the file of a uri lies; only `send: video` asks."""
    limit: int | None = None
    """At most so many clips are asked about in this run; None: all."""

    def caption(
        self, clips: Sequence[Clip], videos: Mapping[str, Video]
    ) -> tuple[list[Written], list[Rejection], LlmReport]:
        """Return the captions of clips, in order, with rejections and a report. Answers in the journal are reused.

        Args:
            clips: The clips.
            videos: Their videos by id.

        Raises:
            ConfigError: the settings are incomplete, the key is missing or refused, or the budget is used up.
            ArtifactError: frames or journal cannot be read, or the journal cannot be written.
            ServiceError: the model does not answer.
        """
        self.settings.require_complete()
        with open_journal(self.journal_dir) as journal:
            plan = self._plan(clips, videos, journal)
            spent_before = journal.settled_usd + journal.unsettled_usd
            reasons: dict[str, Refusal] = {}
            if plan.to_ask:
                with closing(open_provider(self.settings)) as provider:
                    lost = ask_all(
                        self._jobs(plan, videos, reasons), num_jobs=len(plan.to_ask), provider=provider,
                        settings=self.settings, journal=journal,
                    )
                reasons.update({each.subject.key: Refusal(each.reason, code="llm-no-answer") for each in lost})
            written, rejections = self._outcome(plan, journal, reasons)
            spent = journal.settled_usd + journal.unsettled_usd
        return written, rejections, LlmReport(
            num_clips=len(plan.wanted), num_marked=plan.num_marked, num_cached=plan.num_cached,
            num_captioned=len(written), num_rejected=len(rejections),
            num_waiting=len(plan.wanted) - len(written) - len(rejections),
            cost_usd=spent - spent_before, spent_usd=spent, num_broken=journal.num_broken,
        )

    def estimate(self, clips: Sequence[Clip], videos: Mapping[str, Video]) -> Estimate:
        """Estimate the requests and the cost of `caption`.

        Args:
            clips: The clips.
            videos: Their videos by id.

        Raises:
            ConfigError: the settings are incomplete.
            ArtifactError: frames or journal cannot be read.
        """
        self.settings.require_complete()
        journal = read_journal(self.journal_dir)
        plan = self._plan(clips, videos, journal)
        tally = journal.tallies[basis_of(self.settings)]
        guesses = [wanted.subject.guessed_in for wanted in plan.to_ask]
        tokens_in, tokens_out, how = _expected(tally, guesses, GUESSED_TOKENS_OUT + self._guessed_thoughts())
        return Estimate(
            num_clips=len(plan.wanted), num_marked=plan.num_marked, num_cached=plan.num_cached, num_to_ask=len(guesses),
            tokens_in=tokens_in, tokens_out=tokens_out, cost_usd=self.settings.cost_usd(tokens_in, tokens_out),
            at_most_usd=sum(most_usd(self.settings, tally, guess) for guess in guesses),
            spent_usd=journal.settled_usd + journal.unsettled_usd, budget_usd=self.settings.budget_usd, estimated_by=how,
        )

    def _plan(self, clips: Sequence[Clip], videos: Mapping[str, Video], journal: Journal) -> _Plan:
        frames = read_table(self.frames_dir / "frames.parquet", FRAMES, columns=["clip_id", "quality_flags"])
        stored = {clip.clip_id: clip for clip in stored_clips(self.frames_dir)}
        skipped = {
            clip_id for clip_id, quality_flags in zip(frames["clip_id"], frames["quality_flags"], strict=True)
            if quality_flags is not None and set(quality_flags) & set(self.settings.skip_quality_flags)
        }
        of_cuts = [clip for clip in clips if set(clip.cut) & set(self.settings.cuts) and str(clip.clip_id) in stored]
        seen = [clip for clip in of_cuts if str(clip.clip_id) not in skipped]
        every = self._with_keys(seen, stored, videos)
        # What is paid for comes first: new videos must not push out captions that are there.
        every.sort(key=lambda each: (self._known(journal, each.subject.key) is None, _spread(each.clip)))
        wanted = sorted(every[: self.settings.max_clips], key=lambda each: (each.clip.video_id, each.clip.index))
        first = {each.subject.key: each for each in reversed(wanted)}
        unknown = [each for key, each in first.items() if self._known(journal, key) is None]
        to_ask = sorted(unknown, key=lambda each: _spread(each.clip))[: self.limit]
        num_cached = sum(self._known(journal, each.subject.key) is not None for each in wanted)
        return _Plan(wanted, to_ask, num_cached, num_marked=len(of_cuts) - len(seen))

    def _known(self, journal: Journal, key: str) -> Entry | None:
        """Return a reusable answer: captions, or a refusal that a longer answer would not change."""
        entry = journal.entries.get(key)
        if entry is None or entry.captions is not None:
            return entry
        may_be_whole = entry.cut_at is not None and entry.cut_at < longest_answer(self.settings)
        return entry if entry.reason and not may_be_whole else None

    def _with_keys(
        self, clips: Sequence[Clip], stored: Mapping[str, StoredClip], videos: Mapping[str, Video]
    ) -> list[_Wanted]:
        contents = dict(self._contents(clips, stored))
        asked, prompts = prompt_hash(self.settings), dict[str, str]()
        wanted = []
        for clip in clips:
            content = contents[str(clip.clip_id)]
            prompt = prompt_of(self.settings, videos[clip.video_id])
            prompt = prompts.setdefault(prompt, prompt)  # one text for all clips that share it
            key = hashlib.sha256(json.dumps([self.settings.name, asked, prompt, content.name]).encode()).hexdigest()[:32]
            guessed = prompt_tokens(prompt, SCHEMA) + content.tokens
            wanted.append(_Wanted(clip, Subject(key, clip.video_id, guessed), prompt, stored[str(clip.clip_id)]))
        return wanted

    def _contents(self, clips: Sequence[Clip], stored: Mapping[str, StoredClip]) -> Iterator[tuple[str, _Content]]:
        """Yield the media of each clip for the model, by clip_id."""
        if self.settings.send == "frames":
            for clip_id, pictures in self._pictures([stored[str(clip.clip_id)] for clip in clips]):
                yield clip_id, _Content(_digest(pictures), len(pictures) * picture_tokens(self.settings, pictures[0]))
            return
        for clip in clips:
            seconds = (clip.end_ms - clip.start_ms) / 1000
            name = f"{clip.video_id}:{clip.start_ms}:{clip.end_ms}"
            yield str(clip.clip_id), _Content(name, self._video_tokens(seconds))

    def _video_tokens(self, seconds: float) -> int:
        settings, rule = self.settings, caption_provider(self.settings.provider).video_tokens
        if settings.tokens_per_second is not None or rule is None:
            return math.ceil(seconds * (settings.tokens_per_second or 0))
        return rule(str(settings.model), seconds, settings.video_fps, settings.options)

    def _guessed_thoughts(self) -> int:
        """By the first number or word in the fields about thinking."""
        said: object = self.settings.thinking_fields()
        while isinstance(said, Mapping):
            said = next(iter(said.values()), None)
        return said if isinstance(said, int) else GUESSED_THOUGHTS.get(str(said), 0)

    def _jobs(
        self, plan: _Plan, videos: Mapping[str, Video], reasons: dict[str, Refusal]
    ) -> Iterator[tuple[Subject, Request]]:
        """Yield requests, created when they are drawn; the reason for a clip that cannot be cut is recorded in `reasons`."""
        by_clip = {str(each.clip.clip_id): each for each in plan.to_ask}
        if self.settings.send == "frames":
            for clip_id, pictures in self._pictures([each.stored for each in plan.to_ask]):
                yield by_clip[clip_id].subject, Request(by_clip[clip_id].prompt, pictures=pictures)
            return
        if self.path_of is None:
            raise ConfigError(
                "send: video reads the videos, and no source is named", code="source-not-set", remedy="Set ingest.source",
            )
        seen: dict[Path, tuple[int, ...]] = {}
        for each in plan.to_ask:
            try:
                path = self.path_of(videos[each.clip.video_id].uris[0])
                with original(path, each.clip.video_id, seen=seen):
                    video = cut_excerpt(
                        path, start_ms=each.clip.start_ms, end_ms=each.clip.end_ms, side_px=self.settings.video_side_px,
                        fps=self.settings.video_fps,
                    )
            except InputRejected as error:
                reasons[each.subject.key] = Refusal(error.message, code=error.code)
                continue
            yield each.subject, Request(each.prompt, video=video)

    def _pictures(self, clips: Iterable[StoredClip]) -> Iterator[tuple[str, tuple[bytes, ...]]]:
        """Yield the JPEG files to send of each of `clips`, by clip_id."""
        for clip_id, jpegs in read_jpegs(self.frames_dir, clips):
            yield clip_id, choose_pictures(jpegs, self.settings.num_frames)

    def _outcome(
        self, plan: _Plan, journal: Journal, reasons: Mapping[str, Refusal]
    ) -> tuple[list[Written], list[Rejection]]:
        written, rejections = [], []
        paid: set[str] = set()
        for each in plan.wanted:
            key, clip_id = each.subject.key, str(each.clip.clip_id)
            entry = self._known(journal, key)
            if entry is None and key not in reasons:
                continue  # Left for another run.
            if entry is None:
                reason = f"{self.settings.name}: {reasons[key].reason}{TRY_AGAIN}"
                rejections.append(Rejection(clip_id, "caption", reason, retryable=True, code=reasons[key].code))
            elif entry.captions is None:
                rejections.append(Rejection(
                    clip_id, "caption", f"{self.settings.name}: {entry.reason}", code="llm-no-captions",
                ))
            else:
                written.append(self._written(each.clip, entry, cost_usd=0.0 if key in paid else entry.cost_usd))
                paid.add(key)
        return written, rejections

    def _written(self, clip: Clip, entry: Entry, *, cost_usd: float) -> Written:
        assert entry.captions is not None
        texts: dict[str, str] = {}
        for detail in CAPTION_DETAILS:
            if detail in self.settings.keep and entry.captions[detail] not in texts.values():
                texts[detail] = entry.captions[detail]
        writer = f"{self.settings.name} {prompt_hash(self.settings)}"
        return Written(clip, texts, {detail: f"{writer} {detail}" for detail in texts}, cost_usd, entry.model)


@dataclass(frozen=True)
class _Wanted:
    clip: Clip
    subject: Subject
    prompt: str
    stored: StoredClip


@dataclass(frozen=True)
class _Content:
    name: str
    """The same for the same content."""
    tokens: int
    """A guess."""


@dataclass(frozen=True)
class _Plan:
    wanted: list[_Wanted]
    """By video and index."""
    to_ask: list[_Wanted]
    """One for each key."""
    num_cached: int
    num_marked: int


def prompt_tokens(prompt: str, schema: Mapping[str, Any]) -> int:
    """Return the guessed tokens of a prompt with the JSON schema of its answer."""
    return math.ceil((len(prompt) + len(json.dumps(schema))) / CHARACTERS_PER_TOKEN)


def picture_tokens(settings: LlmSettings, jpeg: bytes) -> int:
    """Return the tokens of one picture; the pictures of a clip have one size.

    Args:
        settings: Of the model.
        jpeg: The picture.
    """
    rule = caption_provider(settings.provider).picture_tokens
    if settings.tokens_per_picture is not None or rule is None:
        return GUESSED_PICTURE_TOKENS if settings.tokens_per_picture is None else settings.tokens_per_picture
    with Image.open(io.BytesIO(jpeg)) as picture:
        return rule(str(settings.model), picture.width, picture.height, settings.options)


def _spread(clip: Clip) -> str:
    """Return an order that goes all over the archive: ids are hashes."""
    return str(clip.clip_id)


def _digest(pictures: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(picture).digest() for picture in pictures)).hexdigest()


def choose_pictures(jpegs: Sequence[bytes], num_frames: int) -> tuple[bytes, ...]:
    """Return the JPEG files that a model is shown: at the centres of equal parts, equal neighbours once.

    So a still picture, which fills all frames of its clip, is shown and paid for once.

    Args:
        jpegs: Of a clip, in order.
        num_frames: How many, at most.
    """
    num = min(num_frames, len(jpegs))
    chosen = [jpegs[(2 * i + 1) * len(jpegs) // (2 * num)] for i in range(num)]
    return tuple(each for each, _ in groupby(chosen))


def _expected(tally: Tally, guesses: Sequence[int], guessed_out: int) -> tuple[int, int, str]:
    """Tokens in and out that `guesses` will come to, and in words how that is known."""
    if tally.num_answers:
        tokens_in = round(sum(guesses) * tally.tokens_in / max(1, tally.guessed_in))
        tokens_out = round(len(guesses) * tally.tokens_out / tally.num_answers)
        return tokens_in, tokens_out, f"the mean of {tally.num_answers} answers of this model to this prompt"
    return sum(guesses), len(guesses) * guessed_out, (
        f"a guess: {CHARACTERS_PER_TOKEN} characters a token, pictures by the provider's rule or "
        f"caption.llm.tokens_per_picture (video: tokens_per_second), {guessed_out} tokens an answer with its thoughts; the "
        "first answer will correct it"
    )
