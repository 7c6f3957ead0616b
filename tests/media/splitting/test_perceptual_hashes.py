from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.raising import raises
from vidseek_media.cutting.quality_flags import thumb_of
from vidseek_media.splitting.perceptual_hashes import compare, hash_of, lie_near


def picture(seed: int, size: tuple[int, int] = (180, 320)) -> NDArray[np.uint8]:
    """Soft blobs, as photographs are at their low frequencies."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 8, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def bits_apart(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    one, other = hash_of(thumb_of(a)), hash_of(thumb_of(b))
    assert one is not None and other is not None
    return (one ^ other).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_hash_of__a_smaller_a_brighter_and_a_noisy_copy_are_near_and_another_picture_is_far(seed: int) -> None:
    whole = picture(seed)
    small = np.asarray(Image.fromarray(whole).resize((97, 61)))
    bright = np.clip(whole.astype(int) * 0.7 + 40, 0, 255).astype(np.uint8)
    noisy = np.clip(whole + np.random.default_rng(9).normal(0, 8, whole.shape), 0, 255).astype(np.uint8)
    assert max(bits_apart(whole, other) for other in (small, bright, noisy)) <= 6
    assert bits_apart(whole, picture(seed + 100)) > 12


def test_hash_of__of_plain_and_of_tiny_pictures_is_none() -> None:
    assert hash_of(thumb_of(np.full((64, 64, 3), 90, np.uint8))) is None
    assert hash_of(thumb_of(picture(0, (7, 320)))) is None
    assert hash_of(thumb_of(picture(0, (8, 8)))) is not None


def test_compare__finds_what_comparing_each_with_each_finds() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 40, dtype=np.uint64)
    hashes: dict[str, list[int]] = {}
    for number in range(120):
        flips = [sum(1 << int(bit) for bit in rng.choice(63, size=rng.integers(0, 11), replace=False)) for _ in range(3)]
        hashes[f"{number:03d}"] = [int(base[rng.integers(40)]) ^ flip for flip in flips]

    def share(a: str, b: str) -> float:
        near = [any((x ^ y).bit_count() <= 6 for y in hashes[b]) for x in set(hashes[a])]
        return sum(near) / len(near)

    wanted = [
        (a, b) for a, b in itertools.combinations(sorted(hashes), 2) if share(a, b) >= 0.5 or share(b, a) >= 0.5
    ]
    assert compare(hashes, max_bits=6, min_share=0.5).similar == wanted
    assert len(wanted) >= 15


def test_compare__an_excerpt_is_one_of_the_whole() -> None:
    whole = [int(h) for h in np.random.default_rng(1).integers(0, 2**63, 50, dtype=np.uint64)]
    assert compare({"whole": whole, "excerpt": whole[20:24]}, max_bits=6, min_share=0.9).similar == [("excerpt", "whole")]


def test_compare__of_nothing_and_of_videos_without_hashes_are_none() -> None:
    assert compare({}, max_bits=6, min_share=0.5).similar == []
    assert compare({"a": [], "b": [], "c": [3]}, max_bits=6, min_share=0.5).similar == []


def test_compare__refuses_more_bits_than_it_can_find() -> None:
    with raises(ValueError, naming="max_bits is 8"):
        compare({}, max_bits=8, min_share=0.5)


_HASHES = st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 40), max_size=12)


@given(_HASHES, _HASHES, st.integers(0, 7))
def test_lie_near__as_each_with_each(values: list[int], others: list[int], max_bits: int) -> None:
    found = lie_near(np.array(values, np.uint64), np.array(others, np.uint64), max_bits=max_bits)
    assert found.tolist() == [any((a ^ b).bit_count() <= max_bits for b in others) for a in values]
