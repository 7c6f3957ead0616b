"""The page of the learning loop: which clips to caption next, and which hits to judge."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from serving.page.frame import admin_api, api, ask, language, show_notice, span, t
from serving.page.moments import CARD_PX, picture
from vidseek.client import Problem

NUM_SHOWN = 12
"""Clips, or hits, on the page at once; those that are done make room for the next."""


def teaching_page() -> None:
    """Show what the next training would gain most from, and take it."""
    show_notice()
    st.write(t("teach_what"))
    kinds = {"captions": t("teach_captions"), "judgements": t("teach_judgements")}
    chosen = st.radio(
        t("teach"), list(kinds), format_func=kinds.get, key="teach-kind", horizontal=True, label_visibility="collapsed",
    )
    (_show_judging if chosen == "judgements" else _show_captioning)()


def _show_captioning() -> None:
    found = ask(lambda: admin_api().admin(f"suggestions?kind=captions&limit={NUM_SHOWN}"), admin=True)
    st.caption(t("teach_from", num=found["num_open"], held=found["num_held_out"], captioned=found["num_captioned"]))
    if not found["suggestions"]:
        st.info(t("teach_nothing"))
        return
    with st.container(horizontal=True, gap="small"):
        for place, each in enumerate(found["suggestions"]):
            with st.container(key=f"card-{place}", width=CARD_PX, gap="xxsmall"):
                st.html(_linked_picture(each) + _line(t("teach_stands_for", num=each["num_like"])))
                st.text_input(
                    t("teach_seen"), key=f"caption-{each['clip_id']}", label_visibility="collapsed", max_chars=1000,
                    placeholder=t("teach_seen"), on_change=_write_caption, args=(each["clip_id"],),
                )


def _show_judging() -> None:
    found = ask(lambda: admin_api().admin(f"suggestions?kind=judgements&limit={NUM_SHOWN}"), admin=True)
    if not found["questions"]:
        st.info(t("teach_no_questions"))
        return
    with st.container(horizontal=True, gap="small"):
        for place, each in enumerate(found["questions"]):
            with st.container(key=f"card-{place}", width=CARD_PX, gap="xxsmall"):
                st.html(_linked_picture(each) + f'<div class="vs-title vs-whole">{html.escape(each["text"])}</div>'
                        + _line(t("confidence", value=round(100 * each["confidence"]))))
                with st.container(horizontal=True, gap="xxsmall"):
                    for relevant, name, sign in ((True, "right", "✓"), (False, "wrong", "✗")):
                        st.button(
                            f"{sign} {t(name)}", key=f"{name}-{place}", on_click=_judge,
                            args=(each["text"], each["clip_id"], relevant),
                        )


def _linked_picture(each: Mapping[str, Any]) -> str:
    """Return the clip's picture, which leads to its video."""
    clip_id, uri = str(each["clip_id"]), html.escape(str(each["uri"]), quote=True)
    where = html.escape(f"./?{urlencode({'play': clip_id, 'lang': language()})}", quote=True)
    shot = picture(clip_id, str(each["uri"]), span(each["start_ms"], each["end_ms"]))
    return f'<a href="{where}" target="_blank">{shot}</a><div class="vs-facts" title="{uri}">{uri}</div>'


def _line(text: str) -> str:
    return f'<div class="vs-facts">{html.escape(text)}</div>'


def _write_caption(clip_id: str) -> None:
    text = str(st.session_state.get(f"caption-{clip_id}") or "").strip()
    if not text:
        return
    try:
        admin_api().caption_clip(clip_id, text)
    except Problem as problem:
        st.session_state["notice"] = problem
        return
    st.toast(t("teach_written"))


def _judge(text: str, clip_id: str, relevant: bool) -> None:
    try:
        api().record_feedback(query=text, clip_id=clip_id, relevant=relevant)
    except Problem as problem:
        st.session_state["notice"] = problem
        return
    st.toast(t("said", what=t("right" if relevant else "wrong")))
