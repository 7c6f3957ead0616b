from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.media.speech.sounds import heard, tone, write_sound
from tests.raising import raises
from vidseek_media.errors import InputRejected
from vidseek_media.speech.sound import RATE, decode_sound


def hertz_of(samples: np.ndarray) -> float:
    return float(np.count_nonzero(np.diff(np.signbit(samples[1000:-1000]))) / 2 / (len(samples) - 2000) * RATE)


@pytest.mark.parametrize(("rate", "channels", "codec", "name"), [
    (8_000, 1, "pcm_s16le", "a.mkv"), (48_000, 12, "pcm_s16le", "a.mkv"), (44_100, 2, "aac", "a.mp4"),
    (48_000, 6, "flac", "a.mkv"), (48_000, 1, "libopus", "a.webm"),
])
def test_decode_sound__of_any_rate_and_number_of_channels(
    tmp_path: Path, rate: int, channels: int, codec: str, name: str
) -> None:
    if name.endswith("webm"):
        name = "a.mkv"
    path = write_sound(tmp_path / name, [tone(1.5, rate=rate, channels=channels)], rate=rate, codec=codec)
    samples = heard(path, tmp_path)
    assert len(samples) == pytest.approx(1.5 * RATE, abs=0.1 * RATE)
    assert hertz_of(samples[2000:-2000]) == pytest.approx(440, abs=8)
    assert np.abs(samples).max() == pytest.approx(16384, rel=0.15)


def test_decode_sound__that_begins_later_has_silence_before_it(tmp_path: Path) -> None:
    samples = heard(write_sound(tmp_path / "a.mkv", [tone(1.0)], start_ms=2000), tmp_path)
    assert len(samples) == pytest.approx(3 * RATE, abs=RATE // 50)
    assert np.abs(samples[: int(1.9 * RATE)]).max() == 0 and np.abs(samples[int(2.1 * RATE) :]).max() > 10_000


def test_decode_sound__of_a_tenth_of_a_second(tmp_path: Path) -> None:
    assert len(heard(write_sound(tmp_path / "a.mkv", [tone(0.1)]), tmp_path)) == pytest.approx(0.1 * RATE, abs=100)


def test_decode_sound__where_there_is_none(tmp_path: Path) -> None:
    assert not decode_sound(write_sound(tmp_path / "a.mp4", [], seconds=1), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_decode_sound__of_ten_tracks_takes_one(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mkv", [tone(0.5, hertz=300 + 50 * number) for number in range(10)])
    assert len(heard(path, tmp_path)) == pytest.approx(0.5 * RATE, abs=100)


def test_decode_sound__of_a_damaged_file_gives_what_is_left(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mkv", [tone(4.0)], codec="flac")
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(len(content) // 2, len(content) - 2000, 40):
        content[place] ^= 0xFF
    path.write_bytes(content)
    assert len(heard(path, tmp_path)) > RATE
    path.write_bytes(content[: len(content) // 2])
    assert len(heard(path, tmp_path)) > 0.5 * RATE


def test_decode_sound__of_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with raises(InputRejected, code="not-a-video", naming="cannot be opened"):
        decode_sound(tmp_path / "a.mp4", tmp_path / "out")
