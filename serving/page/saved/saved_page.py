"""Saved searches on the page: a button under an answer saves its query, and a page shows what was new for each."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from serving.page import query
from serving.page.frame import Result, admin_api, api, ask, ask_for_admin_key, local_time, show_notice, show_problem, t
from serving.page.moments import show_card, show_player
from vidseek.client import Problem

_REFUSED = "refused_key"
"""In the session: the admin key that the API refused; None for that of the page."""


def show_save(body: Mapping[str, Any], hits: Sequence[Mapping[str, Any]], *, place: int) -> None:
    """Show the button that saves a query. Where its moments have no confidence, the least score is that of the last shown.

    Args:
        body: JSON of POST /v1/search.
        hits: Its answer.
        place: Number of the answer on the page.
    """
    asked = {name: value for name, value in body.items() if name != "limit"}
    if hits and hits[0]["confidence"] is None:
        asked["min_score"] = min(hit["score"] for hit in hits)
    st.button(t("save_search"), key=f"save-{place}", icon=":material/notification_add:", help=t("save_search_help"),
              on_click=_save, args=(asked,))
    _ask_for_key_if_wanted(place)


def _save(asked: Mapping[str, Any]) -> None:
    saved = _written(lambda: admin_api().save_search(asked))
    if saved is None:
        return
    st.toast(t("saved_now", what=saved["name"], least=_least(saved), num=saved["num_before"]))


def _least(saved: Mapping[str, Any]) -> str:
    asked = saved["query"]
    if asked["min_score"] is not None:
        return t("score", value=f"{asked['min_score']:.3f}")
    return t("confidence", value=f"{100 * (asked['min_confidence'] or 0):.0f}")


def saved_page() -> None:
    """Show the saved searches with their newest moments, each with a button that removes it."""
    show_notice()
    _ask_for_key_if_wanted()
    if playing := query.playing():
        show_player(playing)
    found = ask(lambda: api().saved())
    if not found:
        st.info(t("none_saved"))
        return
    for each in reversed(found):
        with st.container(border=True, key=f"saved-{each['id']}"):
            _show_search(each)


def _show_search(saved: Mapping[str, Any]) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.html(f'<div class="vs-title">{html.escape(saved["name"])}</div>'
                f'<div class="vs-facts">{html.escape(_facts_of(saved))}</div>')
        st.button(t("remove"), key=f"remove-{saved['id']}", on_click=_remove, args=(saved["id"],))
    if saved["error"]:
        show_problem(Problem(saved["error"]["message"], remedy=t("saved_fault_help")))
    if not saved["moments"]:
        st.caption(t("nothing_new"))
        return
    words = ", ".join(saved["query"]["texts"])
    with st.container(horizontal=True, gap="small"):
        for number, moment in enumerate(saved["moments"]):
            show_card(moment, place=f"saved-{saved['id']}-{number}", asked=words, facts=None, goes_on=False)


def _facts_of(saved: Mapping[str, Any]) -> str:
    moments = saved["moments"]
    last = t("last_new", when=local_time(moments[0]["found_at"])) if moments else ""
    saved_at = t("saved_at", when=local_time(saved["created_at"]))
    facts = [t("num_new", num=saved["num_new"]), last, t("from_least", least=_least(saved)), saved_at]
    return " · ".join(filter(None, [*facts, saved["webhook_host"] or ""]))


def _remove(saved_id: str) -> None:
    _written(lambda: admin_api().remove_saved(saved_id))


def _written(write: Callable[[], Result]) -> Result | None:
    """Return what a write gives; where the API refuses it the next run says why, or asks for the admin key."""
    st.session_state.pop(_REFUSED, None)
    try:
        return write()
    except Problem as problem:
        if problem.name == "key_wrong":
            st.session_state[_REFUSED] = st.session_state.get("admin_key_given")
        else:
            st.session_state["notice"] = problem
        return None


def _ask_for_key_if_wanted(place: int = 0) -> None:
    """Ask for the admin key until another one is given than the API refused."""
    is_refused = _REFUSED in st.session_state and st.session_state[_REFUSED] == st.session_state.get("admin_key_given")
    if place == 0 and is_refused:
        ask_for_admin_key()
