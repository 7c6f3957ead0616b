"""The page that shows what the archive has come to, and rolls back."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import streamlit as st

from serving.page.frame import admin_api, ask, clock, local_time, show_notice, show_table, t
from vidseek.client import Problem

REPORT_PX = 700
_STATES = (("is_live", "live"), ("is_kept", "kept_back"), ("is_base", "other_search"))


def archive_page() -> None:
    """Numbers, rejections, gates, reports, collections."""
    show_notice()
    said = ask(lambda: admin_api().admin("archive"), admin=True)
    _show_numbers(said)
    _show_rejected(said)
    _show_gates(said)
    _show_figures(said)
    _show_reports(said["reports"])
    _show_collections(said)


def _show_numbers(said: Mapping[str, Any]) -> None:
    videos, rejected = said["videos"], sum(each["num"] for each in said["rejected"])
    with st.container(horizontal=True):
        st.metric(t("videos"), videos["num"] if videos else "–", width="content")
        st.metric(t("total_length"), clock(videos["total_ms"]) if videos else "–", width="content")
        st.metric(t("clips_cut"), said["num_clips"] if said["num_clips"] is not None else "–", width="content")
        st.metric(t("rejected"), rejected, width="content")


def _show_rejected(said: Mapping[str, Any]) -> None:
    st.subheader(t("rejected"))
    if not said["rejected"]:
        st.caption(t("nothing_rejected"))
    for each in said["rejected"]:
        with st.expander(f"{each['stage']}: {each['num']}"):
            show_table([t("input"), t("reason")], [(row["id"], row["reason"]) for row in each["first"]])


def _show_gates(said: Mapping[str, Any]) -> None:
    st.subheader(t("gates"))
    if not said["gates"]:
        st.caption(t("not_run"))
        return
    show_table([t("gate"), t("result"), t("not_met")], [
        (each["name"], f"✓ {t('passed')}" if each["passed"] else f"✗ {t('failed')}", "; ".join(each["failures"]))
        for each in said["gates"]
    ])


def _show_figures(said: Mapping[str, Any]) -> None:
    if not said["figures"]:
        return
    st.subheader(t("figures"))
    show_table([t("gallery"), t("other_search"), t("this_search")], [
        (f"{each['gallery']} ({each['num_queries']})", _interval(each["base"]), _interval(each["adapted"]))
        for each in said["figures"]
    ])


def _show_reports(names: list[str]) -> None:
    if not names:
        return
    st.subheader(t("reports"))
    chosen = st.segmented_control(t("open_report"), names, key="report", bind="query-params", label_visibility="collapsed")
    if chosen:
        page = ask(lambda: admin_api().content(f"/v1/admin/reports/{chosen}"), admin=True)
        # As an address of its own it is of no origin: a script in it, if there ever were one, would reach nothing of ours.
        encoded = base64.b64encode(page).decode()
        st.iframe(f"data:text/html;charset=utf-8;base64,{encoded}", height=REPORT_PX, alt=str(chosen))
        st.download_button(t("download"), page, f"{chosen}.html", "text/html", key="download")


def _show_collections(said: Mapping[str, Any]) -> None:
    st.subheader(t("collections"))
    model = said["model"]
    if model:
        st.text(f"{t('model')}: {model['backbone']} · {model['setting'] or ''} · {model['encoder_version']}")
    show_table([t("collections"), t("clips"), t("when"), t("state")], [
        (each["name"], each["num_clips"], local_time(each["made_at"]),
         next((t(text) for mark, text in _STATES if each[mark]), ""))
        for each in said["collections"]
    ])
    if done := st.session_state.pop("rolled_back", None):
        st.success(t("rolled_back", collection=done))
    if said["previous"] is None:
        st.caption(t("nothing_before"))
    elif st.session_state.get("asks_rollback"):
        _ask_rollback(said["live"], said["previous"])
    else:
        st.button(t("rollback"), key="rollback", on_click=_set_asking, args=(True,))


def _ask_rollback(live: str, previous: str) -> None:
    """Send a rollback with the live collection that the visitor saw; if it has changed, the API does nothing."""
    with st.container(border=True):
        st.text(t("rollback_ask", collection=previous, live=live))
        with st.container(horizontal=True):
            st.button(t("rollback_yes"), key="rollback-yes", type="primary", on_click=_roll_back, args=(live,))
            st.button(t("rollback_no"), key="rollback-no", on_click=_set_asking, args=(False,))


def _roll_back(live: str) -> None:
    _set_asking(False)
    try:
        st.session_state["rolled_back"] = admin_api().admin("rollback", {"live": live})["live"]
    except Problem as problem:
        st.session_state["notice"] = problem


def _set_asking(asks: bool) -> None:
    st.session_state["asks_rollback"] = asks


def _interval(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return f"{figure['value']:.3f} ({figure['note']})"
    return f"{figure['value']:.3f} ({figure['low']:.3f} – {figure['high']:.3f})"
