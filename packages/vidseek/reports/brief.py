"""An archive in words, for who was not there: what it holds, what was taught, whether that is better, what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vidseek.paths import ArchivePaths
from vidseek.reports.overview import STAGES, read_json
from vidseek_media.tables import CAPTIONS, CLIPS, PAIRS, SEGMENTS, VIDEOS, read_rejected, read_table
from vidseek_media.text.segments import SEGMENTS_FILE
from vidseek_quality.intervals import MIN_GROUPS


@dataclass(frozen=True)
class Brief:
    """Plain text; names of files and models in it may be anything."""

    holds: str
    taught: str
    better: str
    next_steps: tuple[str, ...]
    """Each a sentence; commands are between backticks."""


def brief_of(paths: ArchivePaths) -> Brief:
    """Describe an archive from the tables and reports of its stages.

    Raises:
        ArtifactError: one of them is broken.
    """
    metrics = read_json(paths.reports / "evaluate" / "metrics.json") or {}
    selected = read_json(paths.selected) or {}
    receipt = read_json(paths.receipts / "publish.json") or {}
    splits = _num_pairs(paths)
    return Brief(
        _holds(paths, receipt), " ".join([_taught(paths, selected, splits), *_by_people(paths, selected)]),
        _better(metrics, selected),
        tuple(_next_steps(paths, metrics, selected, receipt, splits)),
    )


def counted(num: int, what: str) -> str:
    """Return a number with its noun: `1 video`, `1,200 videos`."""
    return f"{num:,} {what}" + ("" if num == 1 else "s")


def percent(share: float) -> str:
    """Return a share as per cent, without a decimal that is 0: `81 %`, `2.5 %`."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def percent_interval(figure: Mapping[str, Any]) -> str:
    """Return a share with its 95 % interval: `81 % (75 to 87)`; without one, why there is none."""
    if figure["low"] is None or figure["high"] is None:
        return f"{percent(figure['value'])} ({figure.get('note') or 'no interval'})"
    return f"{percent(figure['value'])} ({100 * figure['low']:.0f} to {100 * figure['high']:.0f})"


def points_interval(figure: Mapping[str, Any]) -> str:
    """Return a difference of shares in percentage points with its 95 % interval: `+78.5 points (+72.6 to +84.2)`."""
    value = f"{100 * figure['value']:+.1f} points"
    if figure["low"] is None or figure["high"] is None:
        return f"{value} ({figure.get('note') or 'no interval'})"
    return f"{value} ({100 * figure['low']:+.1f} to {100 * figure['high']:+.1f})"


def length_text(duration_ms: int) -> str:
    """Return a length in hours, minutes or seconds, whichever fits."""
    if duration_ms >= 3_600_000:
        return f"{duration_ms / 3_600_000:,.1f} hours"
    return f"{duration_ms / 60_000:.1f} minutes" if duration_ms >= 60_000 else f"{duration_ms / 1000:.0f} seconds"


def verdict(gain: Mapping[str, Any]) -> str:
    """Return what a paired gain proves: `better`, `worse`, `no difference is proven` or `too few videos`."""
    if gain["low"] is None:
        return "too few videos"
    if gain["low"] > 0:
        return "better"
    return "worse" if gain["high"] < 0 else "no difference is proven"


def is_taught(selected: Mapping[str, Any]) -> bool:
    """Whether the champion is an adapter, and not the base."""
    return selected.get("setting") not in (None, "", "base")


def _num_pairs(paths: ArchivePaths) -> dict[str, int]:
    path = paths.pairs_table
    if not path.is_file():
        return {}
    return {str(name): int(num) for name, num in read_table(path, PAIRS, columns=["split"])["split"].value_counts().items()}


def _holds(paths: ArchivePaths, receipt: Mapping[str, Any]) -> str:
    lengths = read_table(paths.ingest / "videos.parquet", VIDEOS, columns=["duration_ms"])["duration_ms"]
    if not len(lengths):
        return "The archive holds no video."
    said = [f"The archive holds {counted(len(lengths), 'video')}, {length_text(int(lengths.sum()))} in all; "
            f"half of them are longer than {length_text(int(lengths.median()))}."]
    num_clips = len(read_table(paths.cut / "clips.parquet", CLIPS, columns=["clip_id"]))
    if receipt.get("num_points"):
        said.append(f"{counted(int(receipt['num_points']), 'clip')} of them can be searched.")
    else:
        said.append(f"They are cut into {counted(num_clips, 'clip')}; nothing is published yet, so none can be searched.")
    num_captions = len(read_table(paths.data / "caption" / "captions.parquet", CAPTIONS, columns=["writer"]))
    said.append(f"{counted(num_captions, 'caption')} {'says' if num_captions == 1 else 'say'} what is seen in them."
                if num_captions else "No caption says what is seen in them.")
    num_segments = sum(_num_segments(paths, stage) for stage in ("subtitles", "speech", "ocr"))
    if num_segments:
        said.append(f"{counted(num_segments, 'line')} of subtitles, speech or on-screen text can be searched by words.")
    num_rejected = sum(_num_rejected(paths, stage) for stage in STAGES)
    if num_rejected:
        said.append(f"{counted(num_rejected, 'input')} could not be used; the reasons are below.")
    return " ".join(said)


def _num_segments(paths: ArchivePaths, stage: str) -> int:
    path = paths.data / stage / SEGMENTS_FILE
    return len(read_table(path, SEGMENTS, columns=["video_id"])) if path.is_file() else 0


def _num_rejected(paths: ArchivePaths, stage: str) -> int:
    path = paths.data / stage / "rejected.parquet"
    return len(read_rejected(path.parent)) if path.is_file() else 0


def _taught(paths: ArchivePaths, selected: Mapping[str, Any], splits: Mapping[str, int]) -> str:
    spec = read_json(paths.encoder / "encoder.json") or {}
    backbone = str(selected.get("backbone") or spec.get("backbone") or "the model")
    num = splits.get("train", 0)
    if is_taught(selected):
        return (f"The model {backbone} was taught with {counted(num, 'captioned clip')} of the archive "
                f"(an adapter, setting {selected['setting']}), and the archive is searched with what it learned.")
    as_it_is = f"the archive is searched with the model {backbone} as it came"
    lost = [each for each in selected.get("challenges") or () if not each.get("won")]
    if lost:
        told = "; ".join(f"{each['challenger']}: {each['verdict']}" for each in lost)
        return (f"The model was taught with {counted(num, 'captioned clip')}, and what it learned was not taken, because it "
                f"is not proven better ({told}): {as_it_is}.")
    if not num:
        return f"Nothing was taught, because no caption belongs to a clip that training could learn from: {as_it_is}."
    notes = "; ".join(map(str, selected.get("notes") or ()))
    return f"Nothing was taught with the {counted(num, 'captioned clip')}{f' ({notes})' if notes else ''}: {as_it_is}."


def _by_people(paths: ArchivePaths, selected: Mapping[str, Any]) -> Iterator[str]:
    """Say what people wrote and judged since the training before, and what came of it in the proof."""
    for challenge in selected.get("challenges") or ():
        report = read_json(paths.reports / "train" / str(challenge["challenger"]) / "metrics.json") or {}
        changes = report.get("changes") or {}
        told = [
            counted(int(num), noun) + rest for name, noun, rest in (
                ("num_new_by_people", "caption", " written here"), ("num_new_judged", "confirmed hit", ""),
                ("num_new_refused", "refused hit", ""),
            ) if (num := changes.get(name))
        ]
        if told:
            yield f"New in the last training ({challenge['challenger']}): {', '.join(told)}. {_proven_gain(challenge)}."


def _proven_gain(challenge: Mapping[str, Any]) -> str:
    champion, verdict = challenge["champion"], challenge["verdict"]
    if challenge.get("gain") is None:
        return f"It was not put to the proof against {champion}: {verdict}"
    interval = f"{challenge['gain']:+.3f} ({challenge['low']:+.3f} to {challenge['high']:+.3f})"
    return f"Against {champion} its mean reciprocal rank changed by {interval}: {verdict}"


def _better(metrics: Mapping[str, Any], selected: Mapping[str, Any]) -> str:
    galleries: Mapping[str, Any] = metrics.get("galleries") or {}
    if not galleries:
        return "How well it finds is not measured: no caption is held out for a test."
    if not is_taught(selected):
        told = [f"Of {_queries(name, entry, galleries)}, the right clip comes first for "
                f"{percent_interval(entry['base']['r1_interval'])}." for name, entry in galleries.items()]
        return " ".join(told)
    return " ".join([_conclusion(galleries), *_gains(galleries), *_kept(metrics), "95 % intervals are in brackets."])


def _conclusion(galleries: Mapping[str, Any]) -> str:
    found = {verdict(entry["gain"]["r1"]) for entry in galleries.values()}
    if found == {"better"}:
        return "The taught model is better."
    if "worse" in found:
        return "The taught model is worse for some captions."
    if "too few videos" in found:
        return "Whether the taught model is better cannot be told: the test captions are of too few videos."
    return "It is not proven on the test captions that the taught model is better."


def _gains(galleries: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in galleries.items():
        gain = entry["gain"]["r1"]
        told = f"{100 * gain['value']:+.1f} points" if gain["low"] is None else points_interval(gain)
        yield (f"Of {_queries(name, entry, galleries)}, it puts the right clip first for "
               f"{percent_interval(entry['adapted']['r1_interval'])}, and the model as it came for "
               f"{percent(entry['base']['r1_interval']['value'])}: a difference of {told}.")


def _queries(name: str, entry: Mapping[str, Any], galleries: Mapping[str, Any]) -> str:
    return f"{counted(entry['num_queries'], 'test caption')}" + (f" ({name})" if len(galleries) > 1 else "")


def _kept(metrics: Mapping[str, Any]) -> Iterator[str]:
    kept = metrics.get("retention")
    if not isinstance(kept, dict):
        yield "What it may have forgotten of what it knew before is not measured."
        return
    change = kept["change"]["r1"]
    lost = change["high"] is not None and change["high"] < 0
    yield (f"{'It has forgotten some of what it knew' if lost else 'No loss is seen of what it knew'} before: of "
           f"{counted(kept['num_queries'], 'general test caption')} {percent(kept['base']['r1'])} were right, and "
           f"{percent(kept['adapted']['r1'])} are: a difference of {points_interval(change)}.")


def _next_steps(
    paths: ArchivePaths, metrics: Mapping[str, Any], selected: Mapping[str, Any], receipt: Mapping[str, Any],
    splits: Mapping[str, int],
) -> Iterator[str]:
    if not receipt.get("num_points"):
        yield "Run the pipeline to its end, so that the archive can be searched: `vidseek run`, or `dvc repro`."
    else:
        yield "Search: `vidseek ui` opens a page, `vidseek search \"WORDS\"` answers in the terminal."
    if not splits.get("train"):
        yield ("Say what is in some of the clips, so that the model can learn your words: captions.csv beside the videos "
               "(docs/own-videos.md), or captions by a language model (docs/captions.md). Then run the pipeline again.")
    yield from _steps_of_proof(metrics, selected)
    if not _is_calibrated(paths):
        yield "Hits have no confidence yet: too few captions are held out to fit one. Caption more videos."
    if is_taught(selected) and metrics.get("galleries"):
        yield "Look at the wrong answers below: more captions of clips like those teach the most."


def _steps_of_proof(metrics: Mapping[str, Any], selected: Mapping[str, Any]) -> Iterator[str]:
    galleries: Mapping[str, Any] = metrics.get("galleries") or {}
    found = {verdict(entry["gain"]["r1"]) for entry in galleries.values()} if galleries else set()
    if "too few videos" in found:
        yield f"Caption more videos: with fewer than {MIN_GROUPS} different ones in the test nothing can be proven."
    elif is_taught(selected) and "worse" in found:
        yield "Do not rely on it yet: compare it with the model as it came (`vidseek base`, then `vidseek ui`)."
    elif selected.get("challenges") and not is_taught(selected):
        yield "Caption more videos, or begin from a larger model (docs/choosing-a-backbone.md), and run the pipeline again."
    if is_taught(selected) and not isinstance(metrics.get("retention"), dict):
        yield ("Set general.source to general pictures with captions, so that forgetting is measured and held "
               "(docs/training.md).")


def _is_calibrated(paths: ArchivePaths) -> bool:
    return "calibration_error" in (read_json(paths.reports / "calibrate" / "metrics.json") or {})
