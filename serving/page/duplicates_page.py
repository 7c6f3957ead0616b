"""The page on which people decide which near-duplicates are some."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import streamlit as st

from serving.page.frame import RETRY_SECONDS, admin_api, ask, local_time, show_problem, span, t
from vidseek.client import Api, Problem

MAX_ROWS = 30
"""On the page at once; what is decided makes room for the next."""
PUBLISH_COMMAND = "dvc repro --force --single-item publish"
_STILLS = 8
"""Frames that are asked for at once."""
_STILLS_KEPT = 512
"""Of all visitors who have the admin key: each costs the API a decoder, and some ten kilobytes here."""


def duplicates_page() -> None:
    """Look for them, look at them, accept or refuse, apply."""
    said = ask(lambda: admin_api().admin("duplicates"), admin=True)
    _show_search(said)
    if said["state"] == "running":
        _wait_for_search()
        return
    if said["state"] == "failed":
        show_problem(Problem(said["problem"]))
    if said["threshold"] is None:
        st.info(t("never_looked"))
        return
    figures = {name: f"{value:.3f}" for name, value in said["threshold"].items()}
    st.caption(t("threshold", when=local_time(said["found_at"]), **figures))
    if not said["rows"]:
        st.info(t("found_none"))
        return
    if applied := st.session_state.pop("applied", None):
        st.toast(applied)  # whoever has scrolled down to the button does not see the top
        st.success(f"{applied} {t('applied_next')}")
        st.code(PUBLISH_COMMAND, language="bash")
    _show_rows(said)


def _show_search(said: Mapping[str, Any]) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        precision = st.number_input(t("precision"), 0.5, 0.999, 0.95, 0.01, format="%.3f", key="precision", width=220,
                                    help=t("precision_help"))
        if st.button(t("find"), key="find", disabled=said["state"] == "running"):
            ask(lambda: admin_api().admin("duplicates/find", {"precision": precision}), admin=True)
            st.rerun()


@st.fragment(run_every=RETRY_SECONDS)
def _wait_for_search() -> None:
    st.info(t("finding"), icon="spinner")  # stays, while a spinner of its own is there only as long as the API is asked
    if ask(lambda: admin_api().admin("duplicates"))["state"] != "running":
        st.rerun()


def _show_rows(said: Mapping[str, Any]) -> None:
    # Undecided ones first; those of one group (the video that is kept) beside each other.
    rows = sorted(said["rows"], key=lambda row: (row["decision"] != "open", row["duplicate_of"], row["video_id"]))[:MAX_ROWS]
    with st.spinner(t("working")), ThreadPoolExecutor(_STILLS) as threads:
        pictures = list(threads.map(_pictures, [admin_api()] * len(rows), rows))
    choices = {"open": t("open"), "accepted": t("accept"), "refused": t("refuse")}
    with st.form("decide", border=False):
        chosen = {}
        for number, (row, (kept, folded)) in enumerate(zip(rows, pictures, strict=True)):
            with st.container(border=True, key=f"duplicate-{number}"):
                left, right = st.columns(2)
                left.html(_side(t("kept"), row["of_uri"], row["of_start_ms"], row["of_end_ms"], kept))
                right.html(_side(t("folded"), row["uri"], row["start_ms"], row["end_ms"], folded))
                st.caption(f"{t(row['kind'])} · {t('likeness', value=format(row['score'], '.3f'))} · {_why(row['reason'])}")
                chosen[row["key"]] = st.radio(
                    t("verdict"), list(choices), index=list(choices).index(row["decision"]), format_func=choices.get,
                    key=f"decision-{said['revision']}-{row['key']}", horizontal=True, label_visibility="collapsed",
                )
        # What was decided was decided on what was shown. Where that has changed since, the choices are gone with their keys:
        # the API shall say so.
        shown = st.session_state.get("revision_shown", said["revision"])
        st.session_state["revision_shown"] = said["revision"]
        if st.form_submit_button(t("apply"), type="primary", key="apply"):
            _apply(shown, rows, chosen)


def _apply(revision: str, rows: list[dict[str, Any]], chosen: Mapping[str, str | None]) -> None:
    changed = [row for row in rows if chosen[row["key"]] not in (row["decision"], "open")]
    keys = {name: [row["key"] for row in changed if chosen[row["key"]] == name] for name in ("accepted", "refused")}
    try:
        admin_api().admin(
            "duplicates/decide", {"revision": revision, "accept": keys["accepted"], "refuse": keys["refused"]}
        )
    except Problem as problem:
        show_problem(problem)
        return
    st.session_state["applied"] = t("applied", accepted=len(keys["accepted"]), refused=len(keys["refused"]))
    st.rerun()


def _pictures(asked: Api, row: Mapping[str, Any]) -> tuple[str, str]:
    """Return frames of both that show the same, as data addresses; empty where there is none to be had."""
    at_ms, of_ms = (row["start_ms"] + row["end_ms"]) // 2, (row["of_start_ms"] + row["of_end_ms"]) // 2
    if row["reason"]:
        moments = row["reason"]["moments_ms"]
        at_ms, of_ms = moments[len(moments) // 2]
    return _still(asked, row["duplicate_of"], of_ms), _still(asked, row["video_id"], at_ms)


def _why(reason: Mapping[str, Any] | None) -> str:
    """Return how the two were aligned and what differs; or that they are joined through a third video."""
    if reason is None:
        return t("through_a_third")
    aligned = t("aligned", speed=format(reason["speed"], ".2f"), offset=format(reason["offset_ms"] / 1000, "+z.1f"))
    # As text, not as Markdown.
    return " · ".join([aligned, *(f"`{each}`" for each in reason["differences"])])


def _still(asked: Api, video_id: str, at_ms: int) -> str:
    try:
        return _decoded(asked, video_id, at_ms)
    except Problem:
        return ""


@lru_cache(maxsize=_STILLS_KEPT)
def _decoded(asked: Api, video_id: str, at_ms: int) -> str:
    content = asked.content(f"/v1/admin/videos/{video_id}/still?at_ms={at_ms}")
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def _side(role: str, uri: str, start_ms: int, end_ms: int, picture: str) -> str:
    shown = f'<img src="{picture}" alt="{html.escape(t("picture_of", title=uri), quote=True)}">' if picture else ""
    return (
        f'<div class="vs-shot">{shown}<span class="vs-time">{span(start_ms, end_ms)}</span></div>'
        f'<div class="vs-title">{html.escape(uri)}</div><div class="vs-facts">{html.escape(role)}</div>'
    )
