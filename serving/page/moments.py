"""A moment as people see it: a card in the grid, and the player with what lies around it."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import streamlit as st

from serving.page import query
from serving.page.basket.basket_page import save_link
from serving.page.basket.contents import KeptMoment, kept, toggle
from serving.page.frame import admin_api, api, ask, ask_for_admin_key, clock, show_problem, span, t
from serving.page.shown import address
from vidseek.client import Problem
from vidseek.matches import from_first_match, split_at_matches

CARD_PX = 264
MAX_EVIDENCE = 2
"""Texts that a card shows."""
MAX_SEGMENTS = 80
"""Texts of a video that the player lists, around the clip."""
LIKE, UNLIKE = "+", "\N{MINUS SIGN}"
"""Signs that every font has, as the full-width ones of Chinese and Japanese fonts are not."""


def show_card(
    hit: Mapping[str, Any], *, place: str, asked: str, facts: Mapping[str, Any] | None, goes_on: bool = True
) -> None:
    """Show one moment of an answer with its actions.

    Args:
        hit: As the API gives it.
        place: Where it stands, for the keys of its buttons: `0-3` is the fourth of the first query.
        asked: The words that were searched for, or "": then nothing can be said of it.
        facts: What the index knows of its best clip, where that was looked up.
        goes_on: Whether one can search on from it.
    """
    clip_id, title = str(hit["best_clip_id"]), str(hit["title"])
    with st.container(key=f"card-{place}", width=CARD_PX, gap="xxsmall"):
        moment = KeptMoment.of_hit(hit)
        saving = save_link(moment) if goes_on else ""
        st.html(picture(clip_id, title, span(hit["start_ms"], hit["end_ms"])) + _facts(hit, title, facts) + saving)
        first = st.container(horizontal=True, gap="xxsmall")
        with first:
            action, where = (query.play_at, (clip_id, hit["start_ms"])) if _is_timed(hit) else (query.play, (clip_id,))
            st.button(f"▶ {t('play')}", key=f"play-{place}", on_click=action, args=where, type="primary")
            if goes_on:
                st.button(f"≈ {t('alike')}", key=f"alike-{place}", on_click=query.only_like, args=(clip_id,))
        with st.container(horizontal=True, gap="xxsmall") if goes_on else first:
            for sign, name, action in ((rf"\{LIKE}", "like", query.add_like), (UNLIKE, "unlike", query.add_unlike)):
                if goes_on:
                    st.button(sign, key=f"{name}-{place}", on_click=action, args=(clip_id,), help=t(f"{name}_help"))
            if asked:
                said = st.session_state.setdefault("said", {}).get((asked, clip_id))
                for relevant, name, sign in ((True, "right", "✓"), (False, "wrong", "✗")):
                    st.button(
                        f"{sign} {t(name)}",
                        key=f"{name}-{place}",
                        on_click=_record_feedback,
                        args=(asked, clip_id, relevant),
                        type="primary" if said is relevant else "secondary",
                    )
            if goes_on:
                st.button(
                    t("basket"), key=f"basket-{place}", on_click=toggle, args=(moment,), help=t("basket_help"),
                    type="primary" if moment in kept() else "secondary",
                )


def _is_timed(hit: Mapping[str, Any]) -> bool:
    """Return whether a moment was found for what is said or shown: it begins where the words do, not where its clip does."""
    return any(each["field"] in ("speech", "ocr") for each in (hit.get("evidence") or [])[:1])


def show_player(clip_id: str) -> None:
    """Show the video of a clip from its start, and the neighbouring clips."""
    st.dialog(t("play"), width="large", on_dismiss=query.close)(_show_player)(clip_id)


def _show_player(clip_id: str) -> None:
    playing = query.playing() or clip_id
    clip = ask(lambda: api().clip(playing))
    st.html(
        f'<div class="vs-title">{html.escape(clip["title"])}</div>'
        f'<div class="vs-facts">{html.escape(_line(clip))}</div>'
        f'{_own_fields(clip, without="tags")}'
        f'{_player(playing, clip, query.playing_at())}'
    )
    _show_tags(playing, clip)
    _show_transcript(playing, clip)
    st.write(t("around"))
    with st.container(horizontal=True, gap="small"):
        for place, near in enumerate(ask(lambda: api().neighbours(playing))):
            with st.container(key=f"near-{place}", width=132, gap="small"):
                st.html(picture(str(near["clip_id"]), clip["title"], ""))
                # Never disabled: the one that was pressed would lose the focus, and Escape would reach no dialog.
                st.button(
                    f"▶ {clock(near['start_ms'])}", key=f"play-near-{place}", width="stretch", on_click=query.play,
                    args=(near["clip_id"],), type="primary" if near["clip_id"] == playing else "secondary",
                )
    st.caption(t("link"))


def _show_tags(clip_id: str, clip: Mapping[str, Any]) -> None:
    """Show the tags of a clip, where one is removed, picked from those of the archive, or written."""
    tagged: dict[str, list[str]] = st.session_state.setdefault("tagged", {})  # until they are published
    tags = tagged.get(clip_id, list((clip.get("fields") or {}).get("tags", [])))
    known = (ask(lambda: api().facets()).get("fields") or {}).get("tags", {}).get("values", [])
    st.session_state.setdefault(key := f"tags-of-{clip_id}", tags)
    with st.container(key="tags"):
        st.multiselect(
            t("tags"), list(dict.fromkeys([*tags, *(each["value"] for each in known)])), key=key, placeholder=t("tag_add"),
            accept_new_options=True, select_all=False, on_change=_tag_as_chosen, args=(clip_id, tuple(tags)),
        )
        problem, with_key = st.session_state.get("tag_problem", (None, None))
        if problem is not None and problem.name != "key_wrong":
            show_problem(problem)
        elif problem is not None and with_key == st.session_state.get("admin_key_given"):  # no other was given since
            ask_for_admin_key()
        elif clip_id in tagged:  # a toast would take the place of the style sheet: the dialog alone is drawn anew
            st.caption(t("tagged"))


def _tag_as_chosen(clip_id: str, before: tuple[str, ...]) -> None:
    key = f"tags-of-{clip_id}"
    st.session_state.pop("tag_problem", None)
    chosen = [written for each in st.session_state[key] if (written := each.strip())]
    st.session_state[key] = list(before)
    added, removed = ([each for each in one if each not in other] for one, other in ((chosen, before), (before, chosen)))
    for tag, has_tag in [*((each, True) for each in added), *((each, False) for each in removed)]:
        try:
            tags = admin_api().tag_clip(clip_id, tag, has_tag=has_tag)
        except Problem as problem:
            st.session_state["tag_problem"] = (problem, st.session_state.get("admin_key_given"))
            return
        st.session_state["tagged"][clip_id] = st.session_state[key] = tags


def _show_transcript(clip_id: str, clip: Mapping[str, Any]) -> None:
    """Show what is said and written in the video around the clip; a click plays the video from there."""
    segments = ask(lambda: api().transcript(clip_id))
    if not segments:
        return
    nearest = min(range(len(segments)), key=lambda row: abs(segments[row]["start_ms"] - clip["start_ms"]))
    first = max(0, nearest - MAX_SEGMENTS // 2)
    st.write(t("transcript"))
    with st.container(height=220, gap="xxsmall", key="transcript"):
        for place, each in enumerate(segments[first : first + MAX_SEGMENTS]):
            st.button(
                f"{clock(each['start_ms'])}  {_plain(each['text'])}", key=f"said-{place}", type="tertiary", width="content",
                on_click=query.play_at, args=(clip_id, each["start_ms"]), help=t(each["field"]),
            )


def _plain(text: str) -> str:
    """Escape what Markdown, which labels of buttons are read as, would take for more than letters."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])", r"\\\1", text)


def _player(clip_id: str, clip: Mapping[str, Any], at_ms: int | None = None) -> str:
    """Return the video from the second at which the clip begins, or from `at_ms`, and the file for browsers that cannot
    play it.

    No browser plays a GIF as a video; all show it as a picture that moves.
    """
    media, name = address(clip_id, "media"), PurePosixPath(str(clip["uri"])).name
    if name.lower().endswith(".gif"):
        alt = html.escape(t("picture_of", title=clip["title"]), quote=True)
        return f'<img class="vs-video" src="{media}" alt="{alt}">'
    start_ms = clip["start_ms"] if at_ms is None else at_ms
    return (
        f'<video class="vs-video" controls autoplay preload="metadata" src="{media}#t={start_ms / 1000:.3f}" '
        f'poster="{address(clip_id, "thumbnail")}"></video>'
        f'<div class="vs-file">{html.escape(t("no_play"))} '
        f'<a href="{media}" download="{html.escape(name, quote=True)}">{html.escape(t("download"))}</a></div>'
    )


def show_example(clip_id: str, *, place: str, sign: str) -> None:
    """Show an example clip, positive or negative, with a button that removes it."""
    with st.container(key=f"near-{place}", width=132, gap="small"):
        st.html(picture(clip_id, "", sign))
        st.button(t("remove"), key=f"remove-{place}", width="stretch", on_click=query.forget_example, args=(clip_id,))


def _record_feedback(asked: str, clip_id: str, relevant: bool) -> None:
    try:
        api().record_feedback(query=asked, clip_id=clip_id, relevant=relevant)
    except Problem as problem:
        st.session_state["notice"] = problem
        return
    st.session_state["said"][asked, clip_id] = relevant
    st.toast(t("said", what=t("right" if relevant else "wrong")))


def picture(clip_id: str, title: str, corner: str) -> str:
    """Return the picture of a clip as HTML.

    Args:
        clip_id: A UUID.
        title: For whoever does not see it.
        corner: What is written in its corner; may be empty.
    """
    alt = html.escape(t("picture_of", title=title) if title else corner, quote=True)
    label = f'<span class="vs-time">{html.escape(corner)}</span>' if corner else ""
    return f'<div class="vs-shot"><img loading="lazy" src="{address(clip_id, "thumbnail")}" alt="{alt}">{label}</div>'


def _facts(hit: Mapping[str, Any], title: str, facts: Mapping[str, Any] | None) -> str:
    worth = [t("score", value=f"{hit['score']:.3f}")]
    if hit["confidence"] is not None:
        worth.insert(0, t("confidence", value=round(100 * hit["confidence"])))
    whence = _line(facts) if facts else str(hit["uri"])
    return (
        f'<div class="vs-title" title="{html.escape(title, quote=True)}">{html.escape(title)}</div>'
        f'<div class="vs-facts" title="{html.escape(whence, quote=True)}">{html.escape(whence)}</div>'
        f'<div class="vs-facts">{html.escape(" · ".join(worth))}</div>'
        f'{_own_fields(hit)}'
        f'{_evidence(hit)}'
    )


def _own_fields(hit: Mapping[str, Any], *, without: str = "") -> str:
    """Return the declared fields of a moment, or all but one, as one line; empty where it has none."""
    said = [
        f"{name}: {', '.join(map(_short, value if isinstance(value, list) else [value]))}"
        for name, value in (hit.get("fields") or {}).items() if name != without
    ]
    line = html.escape(" · ".join(said), quote=True)
    return f'<div class="vs-facts" title="{line}">{line}</div>' if said else ""


def _short(value: object) -> str:
    """A midnight is its day."""
    return str(value).removesuffix("T00:00:00Z")


def _evidence(hit: Mapping[str, Any]) -> str:
    """Return the texts for which a moment was found, with the matched words marked; all of it is escaped.

    They are the best one, and one more if it has matches that the best lacks.
    """
    shown: list[str] = []
    known: set[str] = set()
    for each in hit.get("evidence") or []:
        matches = {word.casefold() for word in each["matches"]}
        if len(shown) < MAX_EVIDENCE and (not shown or matches - known):
            known |= matches
            shown.append(_marked(each))
    return "".join(shown)


def _marked(evidence: Mapping[str, Any]) -> str:
    """Return one text as HTML, from shortly before its first match; it has a direction of its own."""
    marked = "".join(
        f"<mark>{html.escape(part)}</mark>" if is_match else html.escape(part)
        for part, is_match in from_first_match(split_at_matches(evidence["text"], evidence["matches"]))
    )
    field = t(evidence["field"])
    title = html.escape(f"{field}: {evidence['text']}", quote=True)
    return f'<div class="vs-facts vs-said" title="{title}">{html.escape(field)}: <bdi>{marked}</bdi></div>'


def _line(clip: Mapping[str, Any]) -> str:
    day = str(clip.get("published_at") or "")[:10]
    return " · ".join(str(each) for each in (clip.get("channel"), clip.get("category"), day, clip["uri"]) if each)
