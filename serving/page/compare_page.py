"""The page that asks two models the same: what the teaching did, moment by moment."""

from __future__ import annotations

import html

import streamlit as st

from serving.page.frame import api, other_api, show_notice, show_problem, t
from serving.page.moments import show_card, show_player
from serving.page.query import playing
from vidseek.client import Api, Problem

NUM_SHOWN = 6
"""Moments of each model."""


def compare_page() -> None:
    """One query, two columns."""
    show_notice()
    st.write(t("compare_what"))
    words = (st.text_input(t("look_for"), key="compare-q", bind="query-params", type="search") or "").strip()
    if clip_id := playing():
        show_player(clip_id)
    other = other_api()
    if not words or other is None:
        return
    with st.container(key="compared"):  # on a phone too they stand beside each other
        left, right = st.columns(2)
    for column, name, asked in ((left, "other_search", other), (right, "this_search", api())):
        with column:
            st.html(f'<div class="vs-title">{html.escape(t(name))}</div>')
            _show_answer(asked, words, place=name)


def _show_answer(asked: Api, words: str, *, place: str) -> None:
    try:
        with st.spinner(t("searching")):
            hits = asked.search({"text": words, "limit": NUM_SHOWN})["hits"]
    except Problem as problem:
        show_problem(problem)
        return
    if not hits:
        st.info(t("nothing"))
    with st.container(horizontal=True, gap="small"):
        for number, hit in enumerate(hits):
            said_of = words if place == "this_search" else ""  # the other API's clips are not in this one's index
            show_card(hit, place=f"{place}-{number}", asked=said_of, facts=None, goes_on=False)
