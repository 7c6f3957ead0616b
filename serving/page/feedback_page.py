"""The page that shows what was said of hits, and freezes it."""

from __future__ import annotations

from urllib.parse import urlencode

import streamlit as st

from serving.page.frame import Link, admin_api, ask, language, local_time, show_table, t


def feedback_page() -> None:
    """Show the table of feedback and the button to freeze it."""
    st.write(t("feedback_what"))
    said = ask(lambda: admin_api().admin("feedback"), admin=True)
    if not said["num"]:
        st.info(t("nothing_said"))
        return
    if st.button(t("freeze"), type="primary", key="freeze"):
        with st.spinner(t("freeze")):
            done = ask(lambda: admin_api().admin("feedback/freeze", {}), admin=True)
        st.success(t("frozen", num=done["num_rows"]))
    show_table([t("when"), t("query"), t("verdict"), t("clip")], [
        (local_time(each["said_at"], to="seconds"), each["query"], t("right" if each["relevant"] else "wrong"),
         Link(_moment(each["query"], each["clip_id"]), f"▶ {t('play')}"))
        for each in said["said"]
    ])


def _moment(query: str, clip_id: str) -> str:
    """Return the address at which the query is asked again and the clip plays."""
    return f"./?{urlencode({'q': query, 'play': clip_id, 'lang': language()})}"
