"""The page that asks two models the same: what the teaching did, moment by moment."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import streamlit as st

from serving.page.frame import api, ask, find_other, show_notice, show_problem, t
from serving.page.moments import show_card, show_player
from serving.page.query import playing
from vidseek.client import Api, Problem

NUM_SHOWN = 6
"""Moments of each model."""
_OF_SERVICES = {"other_search": "other_service", "this_search": "this_service"}


def compare_page() -> None:
    """Show two columns of results for one query."""
    show_notice()
    compared = ask(find_other)
    is_base = compared is None or bool(compared.body)  # else it is another service, of whichever model
    st.write(t("compare_what" if is_base else "compare_services"))
    if compared is None:
        st.info(t("no_base"))
        return
    words = (st.text_input(t("look_for"), key="compare-q", bind="query-params", type="search") or "").strip()
    if clip_id := playing():
        show_player(clip_id)
    if not words:
        return
    if compared.is_current is False:
        st.info(t("base_other_state"))
    with st.spinner(t("searching")):
        answers = {
            "other_search": _ask(compared.api, words, compared.body), "this_search": _ask(api(), words, {}),
        }
    _say_shared(answers["other_search"], answers["this_search"])
    with st.container(key="compared"):  # on a phone too they stand beside each other
        for column, (name, answer) in zip(st.columns(2), answers.items(), strict=True):
            with column:
                st.html(f'<div class="vs-title">{html.escape(t(name if is_base else _OF_SERVICES[name]))}</div>')
                _show_answer(name, answer, words)


def _ask(asked: Api, words: str, body: Mapping[str, str]) -> dict[str, Any] | Problem:
    try:
        return asked.search({"text": words, "limit": NUM_SHOWN, **body})
    except Problem as problem:
        return problem


def _show_answer(name: str, answer: dict[str, Any] | Problem, words: str) -> None:
    if isinstance(answer, Problem):
        show_problem(answer)
        return
    st.caption(t("asked_of", version=answer["encoder_version"]))
    if not answer["hits"]:
        st.info(t("nothing"))
    said_of = words if name == "this_search" else ""  # the other API's clips need not be in this one's index
    with st.container(horizontal=True, gap="small"):
        for number, hit in enumerate(answer["hits"]):
            show_card(hit, place=f"{name}-{number}", asked=said_of, facts=None, goes_on=False)


def _say_shared(left: dict[str, Any] | Problem, right: dict[str, Any] | Problem) -> None:
    """Print how many moments of the right answer overlap one of the left."""
    if isinstance(left, Problem) or isinstance(right, Problem) or not right["hits"]:
        return
    num = sum(any(_overlap(hit, other) for other in left["hits"]) for hit in right["hits"])
    st.caption(t("in_both", num=num, of=len(right["hits"])))


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    starts, ends = (one["start_ms"], other["start_ms"]), (one["end_ms"], other["end_ms"])
    return bool(one["video_id"] == other["video_id"] and max(starts) < min(ends))
