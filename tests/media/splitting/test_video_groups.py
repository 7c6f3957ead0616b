from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vidseek_media.splitting.video_groups import groups_of

_KEYS = "abcdefg"


def test_groups_of__joins_by_others_and_is_named_by_the_least() -> None:
    assert groups_of(["a", "b", "c", "d", "e"], [("d", "b"), ("e", "d")]) == {
        "a": "a", "b": "b", "c": "c", "d": "b", "e": "b",
    }


@given(st.lists(st.tuples(st.sampled_from(_KEYS), st.sampled_from(_KEYS)), max_size=9))
def test_groups_of__are_what_can_be_reached(together: list[tuple[str, str]]) -> None:
    reached = {key: {key} for key in _KEYS}
    for _ in _KEYS:
        for one, other in together:
            reached[one] = reached[other] = reached[one] | reached[other]
            for key in reached[one]:
                reached[key] = reached[one]
    assert groups_of(_KEYS, together) == {key: min(reached[key]) for key in _KEYS}
