from __future__ import annotations

from vidseek_media.ids import clip_id_of, clip_ids_of


def test_clip_ids_of__are_those_of_clip_id_of() -> None:
    spans = [("0" * 32, 0, 1000), ("f" * 32, 1000, 2500), ("0123456789abcdef" * 2, 123456789, 123456790)]
    assert list(clip_ids_of(*zip(*spans, strict=True))) == [str(clip_id_of(*span)) for span in spans]


def test_clip_ids_of__nothing_is_nothing() -> None:
    assert len(clip_ids_of([], [], [])) == 0
