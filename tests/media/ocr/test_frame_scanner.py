from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidseek_media.ocr.frame_scanner import FrameScanner
from vidseek_media.ocr.text_reader import Corners

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 240, 320


class BlockReader:
    """Finds white rectangles, and reads each as its size; it notes how much it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, int]] = []
        self.num_read = 0

    def find(self, pixels: Pixels, *, scale: float) -> list[Corners]:
        self.shown.append(pixels.shape[:2])
        found = []
        for band in _bands(pixels[:, :, 0].max(axis=1) > 200):
            for span in _bands(pixels[slice(*band), :, 0].max(axis=0) > 200):
                (top, bottom), (left, right) = band, span
                found.append(np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32))
        return found

    def read(self, pixels: Pixels, lines: Sequence[Corners]) -> list[tuple[str, float]]:
        self.num_read += len(lines)
        return [(f"{int(np.ptp(line[:, 0]))}x{int(np.ptp(line[:, 1]))}", 0.99) for line in lines]


def _bands(is_on: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_on, [False]]).astype(int)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def frame(*blocks: tuple[int, int, int, int]) -> Pixels:
    """A dark frame with white blocks (left, top, width, height)."""
    pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    for left, top, wide, tall in blocks:
        pixels[top : top + tall, left : left + wide] = 255
    return pixels


def scanner() -> tuple[FrameScanner, BlockReader]:
    reader = BlockReader()
    return FrameScanner(reader, detect_side_px=HEIGHT), reader


def texts(scan: FrameScanner, pixels: Pixels) -> list[str]:
    return sorted(line.text for line in scan.scan(pixels))


def test_scan__a_frame_that_equals_the_one_before_is_passed_over() -> None:
    scan, reader = scanner()
    noise = np.random.default_rng(0).normal(0, 4, (5, HEIGHT, WIDTH, 3))
    for number in range(5):
        noisy = np.clip(frame((40, 40, 80, 20)) + noise[number], 0, 255).astype(np.uint8)
        assert texts(scan, noisy) == ["80x20"]
    assert (scan.num_seen, scan.num_passed_over, len(reader.shown), reader.num_read) == (5, 4, 1, 1)


def test_scan__looks_at_what_changed_alone_and_keeps_the_rest() -> None:
    scan, reader = scanner()
    assert texts(scan, frame((10, 10, 60, 20))) == ["60x20"]
    assert texts(scan, frame((10, 10, 60, 20), (200, 180, 40, 20))) == ["40x20", "60x20"]
    assert reader.num_read == 2 and reader.shown[1][0] < HEIGHT / 2 and reader.shown[1][1] < WIDTH / 2
    assert texts(scan, frame((200, 180, 40, 20))) == ["40x20"]
    assert reader.num_read == 2


def test_scan__a_line_that_a_change_touches_is_looked_at_whole() -> None:
    scan, _ = scanner()
    scan.scan(frame((20, 100, 200, 20)))
    assert texts(scan, frame((20, 100, 240, 20))) == ["240x20"]  # it grows at its end


def test_scan__a_line_that_stays_in_a_part_that_changes_is_not_read_again() -> None:
    scan, reader = scanner()
    scan.scan(frame((100, 100, 60, 20), (100, 60, 60, 8)))
    assert texts(scan, frame((100, 100, 60, 20), (100, 140, 60, 8))) == ["60x20", "60x8"]
    assert reader.num_read == 3


def test_scan__changes_too_slow_for_one_step_add_up() -> None:
    scan, _ = scanner()
    found = []
    for level in range(40, 256, 8):
        pixels = frame()
        pixels[100:120, 50:110] = level
        found.append(texts(scan, pixels))
    assert found[0] == [] and found[-1] == ["60x20"]


def test_scan__a_frame_smaller_than_a_cell() -> None:
    scan, _ = scanner()
    assert scan.scan(np.full((2, 3, 3), 255, np.uint8)) != [] and scan.num_seen == 1
