"""What Streamlit runs for each visitor, from the top, at each change."""

from __future__ import annotations

import streamlit as st

from serving.page import frame
from serving.page.searching import search_page
from serving.page.texts import LANGUAGES

st.set_page_config(page_title="vidseek", page_icon="🎞️", layout="wide", initial_sidebar_state="collapsed")
frame.show_looks()
page = st.navigation([
    st.Page(search_page, title=frame.t("search"), url_path="", default=True),
], position="top")
with st.sidebar:
    st.selectbox(
        frame.t("language"), list(LANGUAGES), index=list(LANGUAGES).index(frame.browser_language()), key="lang",
        bind="query-params", format_func=lambda name: LANGUAGES[name],
    )
frame.require_access()
page.run()
