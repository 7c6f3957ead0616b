"""Finds the spans in which somebody speaks: Silero's voice activity model, from its package, on ONNX Runtime.

The package needs torch when it is imported. It is not: only its ONNX file is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import ConfigError
from vidseek_media.installing import install_command
from vidseek_media.speech.sound import RATE, Samples

MODEL_FILE = "silero_vad_16k_sequence.onnx"
"""Takes many steps at once."""
STEP, CONTEXT = 512, 64
"""Samples of one step, and of the one before that the model sees with it."""
STEPS_AT_ONCE = 1024
"""Half a minute: what a call takes, so that memory is bounded."""

FALL = 0.15
"""Speech ends where the probability falls so far below the threshold at which it begins."""
MIN_SPEECH_MS, MIN_PAUSE_MS, PAD_MS = 200, 500, 200
"""Shorter speech is dropped, a shorter pause is not one, and so much is kept on both sides."""

Stretch = tuple[int, int]
"""First sample, and the first one behind."""


def require_model() -> Path:
    """Return the file of the model.

    Raises:
        ConfigError: the package is not installed, or has no such file.
    """
    found = find_spec("silero_vad")
    folders = list(found.submodule_search_locations or ()) if found is not None else []
    for folder in folders:
        if (path := Path(folder) / "data" / MODEL_FILE).is_file():
            return path
    what = f"has no {MODEL_FILE}" if folders else "is not installed"
    raise ConfigError(
        f"speech.enabled is true, and silero-vad {what}", code="not-installed",
        remedy=f"Run `{install_command('speech')}`",
    )


def speech_spans(samples: Samples, *, threshold: float, max_seconds: float) -> list[Stretch]:
    """Return the spans in which somebody speaks, in order, none longer than `max_seconds`.

    A longer one is cut where the probability of speech is lowest in its second half.

    Args:
        samples: The sound.
        threshold: Probability of speech from which a span begins, 0 to 1.
        max_seconds: Of one span, above 0.

    Raises:
        ConfigError: the model is not installed.
    """
    chances = np.concatenate([*_chances(samples), np.zeros(0, np.float32)])
    steps = _padded(_runs(chances, threshold=threshold), len(chances))
    longest = max(int(max_seconds * RATE / STEP), 1)
    return [
        (first * STEP, min(last * STEP, len(samples)))
        for span in steps for first, last in _split(span, chances, longest)
    ]


@cache
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(require_model()), options, providers=["CPUExecutionProvider"])


def _chances(samples: Samples) -> Iterator[NDArray[np.float32]]:
    """Yield the probability of speech in each step, in blocks."""
    session = _session()
    h = c = np.zeros((1, 1, 128), np.float32)
    before = np.zeros(CONTEXT, np.float32)
    for start in range(0, len(samples), STEP * STEPS_AT_ONCE):
        block = samples[start : start + STEP * STEPS_AT_ONCE].astype(np.float32) / 32768
        block = np.pad(block, (0, -len(block) % STEP))
        line = np.concatenate([before, block])
        steps = np.lib.stride_tricks.sliding_window_view(line, CONTEXT + STEP)[::STEP]
        chances, h, c = session.run(None, {"input": np.ascontiguousarray(steps), "h": h, "c": c})
        before = line[-CONTEXT:]
        yield np.asarray(chances, np.float32).reshape(-1)


def _runs(chances: NDArray[np.float32], *, threshold: float) -> list[Stretch]:
    """Return spans of steps: from where the threshold is reached to where a pause begins."""
    pause, shortest = (_steps(ms) for ms in (MIN_PAUSE_MS, MIN_SPEECH_MS))
    found: list[Stretch] = []
    start = last = -1
    for step, chance in enumerate(chances.tolist()):
        if chance >= threshold and start < 0:
            start = step
        if start >= 0 and chance >= threshold - FALL:
            last = step
        elif start >= 0 and step - last > pause:
            found.append((start, last + 1))
            start = -1
    if start >= 0:
        found.append((start, last + 1))
    return [(first, end) for first, end in found if end - first >= shortest]


def _padded(spans: list[Stretch], num_steps: int) -> list[Stretch]:
    pad = _steps(PAD_MS)
    return [(max(first - pad, 0), min(end + pad, num_steps)) for first, end in spans]


def _split(span: Stretch, chances: NDArray[np.float32], longest: int) -> Iterator[Stretch]:
    first, end = span
    while end - first > longest:
        half = first + max(longest // 2, 1)
        cut = half + int(np.argmin(chances[half : first + longest])) if half < first + longest else half
        yield first, cut
        first = cut
    yield first, end


def _steps(ms: int) -> int:
    return max(round(ms * RATE / 1000 / STEP), 1)
