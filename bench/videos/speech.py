"""How well speech is heard: word error rate of each engine on spoken sentences, with noise, and CPU time of an hour.

    python -m bench.videos.speech [--out bench/speech.json] [--engine pocketsphinx]... [--model FOLDER]

espeak-ng speaks the sentences. Its voices are harder on models of people than people are, so the rates compare engines and
noise, and say little about a recording. Without `--engine` it measures what needs no model from elsewhere.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import time
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import machine
from vidseek_media.settings import SpeechSettings
from vidseek_media.speech.registry import speech_engine
from vidseek_media.speech.sound import RATE, Samples
from vidseek_media.speech.voice_activity import speech_spans

SENTENCES = (
    "The new harbour bridge will open next year.",
    "He said that the president will come to the city on Monday.",
    "One two three four five six seven eight nine.",
    "We have seen more people in the market this morning.",
)
VOICES = ("en-us", "en-gb")
NOISE_DB = (None, 20, 10)
PAUSE_SECONDS = 2.0


def spoken(text: str, folder: Path, *, voice: str) -> Samples:
    """Return a sentence by espeak-ng."""
    path = folder / "spoken.wav"
    subprocess.run(["espeak-ng", "-v", voice, "-s", "140", "-w", str(path), text], check=True)
    with wave.open(str(path)) as file:
        rate, content = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), np.int16)
    times = np.arange(round(len(content) * RATE / rate)) * rate / RATE
    return np.interp(times, np.arange(len(content)), content).astype(np.int16)


def programme(folder: Path, *, voice: str, noise_db: int | None) -> tuple[Samples, list[tuple[int, int]]]:
    """Return all sentences with pauses between, and where each is, in samples."""
    pause = np.zeros(round(PAUSE_SECONDS * RATE), np.int16)
    parts, places, at = [pause], [], len(pause)
    for text in SENTENCES:
        said = spoken(text, folder, voice=voice)
        places.append((at, at + len(said)))
        parts += [said, pause]
        at += len(said) + len(pause)
    line = np.concatenate(parts).astype(np.float64)
    level = np.sqrt(np.mean(np.concatenate([line[slice(*place)] for place in places]) ** 2))
    hiss = 3.0 if noise_db is None else level * 10 ** (-noise_db / 20)
    line += np.random.default_rng(0).normal(0, hiss, len(line))
    return line.clip(-32768, 32767).astype(np.int16), places


def word_errors(wanted: str, heard: str) -> tuple[int, int]:
    """Return how many words are wrong, missing or too many, and how many there are."""
    one, other = (re.findall(r"[\w']+", text.casefold()) for text in (wanted, heard))
    row = list(range(len(other) + 1))
    for i, word in enumerate(one, 1):
        corner, row[0] = row[0], i
        for j, against in enumerate(other, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (word != against))
    return row[-1], len(one)


def measure_voices(settings: SpeechSettings, folder: Path) -> dict[str, Any]:
    """Return how much of the speech lies in the spans that are found, and how much of the pauses, by noise; and the time."""
    rows: dict[str, Any] = {}
    used = seconds = 0.0
    for noise_db in NOISE_DB:
        inside = speech = outside = silence = 0
        for voice in VOICES:
            samples, places = programme(folder, voice=voice, noise_db=noise_db)
            began = time.process_time()
            spans = speech_spans(samples, threshold=settings.voice_threshold, max_seconds=settings.max_span_seconds)
            used, seconds = used + time.process_time() - began, seconds + len(samples) / RATE
            found, true = (np.zeros(len(samples), bool) for _ in range(2))
            for mask, marked in ((found, spans), (true, places)):
                for start, end in marked:
                    mask[start:end] = True
            inside, speech = inside + int((found & true).sum()), speech + int(true.sum())
            outside, silence = outside + int((found & ~true).sum()), silence + int((~true).sum())
        rows[_name(noise_db)] = {"speech_found": round(inside / speech, 3), "pause_taken": round(outside / silence, 3)}
    return {**rows, "cpu_seconds_per_hour": round(used / seconds * 3600, 1)}


def measure_engine(name: str, settings: SpeechSettings, folder: Path) -> dict[str, Any]:
    """Return the word error rate of an engine by noise, and the CPU time of an hour of speech."""
    engine = speech_engine(name).open(model=settings.model, language="en", options=settings.options)
    rows: dict[str, Any] = {}
    used = seconds = 0.0
    for noise_db in NOISE_DB:
        wrong = total = 0
        for voice in VOICES:
            samples, places = programme(folder, voice=voice, noise_db=noise_db)
            for text, (start, end) in zip(SENTENCES, places, strict=True):
                part = samples[max(start - RATE // 5, 0) : end + RATE // 5]
                began = time.process_time()
                heard = " ".join(each.text for each in engine.transcribe(part, language="en"))
                used, seconds = used + time.process_time() - began, seconds + len(part) / RATE
                errors, words = word_errors(text, heard)
                wrong, total = wrong + errors, total + words
        rows[_name(noise_db)] = {"words": total, "word_error_rate": round(wrong / total, 3)}
    engine.close()
    return {**rows, "cpu_minutes_per_hour_of_speech": round(used / seconds * 60, 1)}


def _name(noise_db: int | None) -> str:
    return "quiet" if noise_db is None else f"noise {noise_db} dB below"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/speech.json"))
    parser.add_argument("--engine", action="append", help="that is measured; may be given more than once")
    parser.add_argument("--model", help="of the engine")
    args = parser.parse_args(arguments)
    settings = SpeechSettings(enabled=True, model=args.model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = {
            "machine": machine(1, ["silero-vad", "onnxruntime"]),
            "voice activity": measure_voices(settings, folder),
            "engines": {each: measure_engine(each, settings, folder) for each in args.engine or ["pocketsphinx"]},
        }
    args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))  # noqa: T201 - this is the command's answer


if __name__ == "__main__":
    main()
