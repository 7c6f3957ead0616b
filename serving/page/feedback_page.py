"""The page that shows what was said of hits, and freezes it."""

from __future__ import annotations

import streamlit as st

from serving.page.frame import admin_api, ask, t


def feedback_page() -> None:
    """A table, and a button."""
    st.write(t("feedback_what"))
    said = ask(lambda: admin_api().admin("feedback"), admin=True)
    if not said["num"]:
        st.info(t("nothing_said"))
        return
    if st.button(t("freeze"), type="primary", key="freeze"):
        with st.spinner(t("freeze")):
            done = ask(lambda: admin_api().admin("feedback/freeze", {}), admin=True)
        st.success(t("frozen", num=done["num_rows"]))
    rows = [
        {t("when"): each["said_at"][:19].replace("T", " "), t("query"): each["query"], t("clip"): each["clip_id"],
         t("verdict"): t("right" if each["relevant"] else "wrong")}
        for each in said["said"]
    ]
    st.dataframe(rows, hide_index=True)
