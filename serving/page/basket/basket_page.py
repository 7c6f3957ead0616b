"""The page of the basket: order moments, and download one timeline of them."""

from __future__ import annotations

import html
from typing import Any

import streamlit as st

from serving.page.basket import contents
from serving.page.frame import api, ask, span, t
from serving.page.shown import address

FORMATS = ("otio", "edl", "fcpxml", "csv", "json")


def basket_page() -> None:
    """Show the moments with their actions, and the timeline that was made of them."""
    moments = contents.kept()
    if not moments:
        st.info(t("basket_empty"))
        return
    st.caption(t("moment" if len(moments) == 1 else "moments", num=len(moments)))
    for place, moment in enumerate(moments):
        _show_moment(place, moment, is_last=place == len(moments) - 1)
    st.button(t("basket_clear"), key="basket-clear", on_click=contents.clear)
    _show_export(moments)


def _show_moment(place: int, moment: contents.KeptMoment, *, is_last: bool) -> None:
    title, uri = html.escape(moment.title), html.escape(moment.uri)
    picture = address(moment.clip_id, "thumbnail")
    with st.container(key=f"kept-{place}", horizontal=True, vertical_alignment="center", gap="small"):
        st.html(f'<div class="vs-shot" style="width:9rem"><img loading="lazy" src="{picture}" alt="{title}">'
                f'<span class="vs-time">{span(moment.start_ms, moment.end_ms)}</span></div>', width="content")
        st.html(f'<div class="vs-title">{place + 1}. {title}</div><div class="vs-facts">{uri}</div>{save_link(moment)}')
        st.button("↑", key=f"up-{place}", on_click=contents.move, args=(place, -1), disabled=place == 0, help=t("earlier"))
        st.button("↓", key=f"down-{place}", on_click=contents.move, args=(place, 1), disabled=is_last, help=t("later"))
        st.button(t("remove"), key=f"out-{place}", on_click=contents.toggle, args=(moment,))


def save_link(moment: contents.KeptMoment) -> str:
    """Return a link that saves a moment as a video file, as HTML."""
    source = address(moment.clip_id, "moment", start_ms=moment.start_ms, end_ms=moment.end_ms)
    link = f'<a href="{html.escape(source, quote=True)}" download>{html.escape(t("save_moment"))}</a>'
    return f'<div class="vs-file">{link}</div>'


def _show_export(moments: list[contents.KeptMoment]) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(t("timeline_format"), FORMATS, key="timeline-format", format_func=lambda each: f".{each}",
                              width=160, on_change=_forget_made)
        handles = st.text_input(t("handles"), "0f", key="handles", help=t("handles_help"), width=160, on_change=_forget_made)
        root = st.text_input(t("media_root"), "", key="media-root", help=t("media_root_help"), width=320,
                             on_change=_forget_made)
        is_wanted = st.button(t("make_timeline"), key="make-timeline", type="primary")
    if is_wanted:
        body: dict[str, Any] = {
            "format": chosen, "moments": [each.body() for each in moments], "handles": handles.strip() or "0f",
            "media_root": root.strip(),
        }
        st.session_state[contents.MADE] = ask(lambda: api().export(body))
    if made := st.session_state.get(contents.MADE):
        _show_made(made)


def _forget_made() -> None:
    st.session_state.pop(contents.MADE, None)


def _show_made(made: dict[str, Any]) -> None:
    said = [t("timeline_made", num=made["num_events"]), *made["notes"]]
    said += [t("left_out", reason=each["reason"]) for each in made["left_out"]]
    st.html("".join(f'<div class="vs-facts">{html.escape(line)}</div>' for line in said))
    st.download_button(
        t("download_timeline", file=made["file_name"]), made["content"], made["file_name"], made["media_type"],
        key="download-timeline", on_click="ignore",
    )
