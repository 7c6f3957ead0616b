"""What Streamlit runs for each visitor, from the top, at each change."""

from __future__ import annotations

import streamlit as st

from serving.page import frame
from serving.page.adding_page import adding_page
from serving.page.archive_page import archive_page
from serving.page.basket.basket_page import basket_page
from serving.page.compare_page import compare_page
from serving.page.duplicates_page import duplicates_page
from serving.page.feedback_page import feedback_page
from serving.page.saved.saved_page import saved_page
from serving.page.searching import search_page
from serving.page.teaching.teaching_page import teaching_page

st.set_page_config(page_title="vidseek", page_icon="🎞️", layout="wide", initial_sidebar_state="collapsed")
frame.show_appearance()
frame.choose_language()
has_other = frame.other() is not None
page = st.navigation(
    [
        st.Page(search_page, title=frame.t("search"), icon=":material/search:", default=True),
        st.Page(
            compare_page, title=frame.t("compare"), icon=":material/compare:", url_path="compare",
            visibility="visible" if has_other else "hidden",  # a link to it may be older than what it compared with
        ),
        st.Page(basket_page, title=frame.t("basket"), icon=":material/movie_edit:", url_path="basket"),
        st.Page(saved_page, title=frame.t("saved"), icon=":material/notifications:", url_path="saved"),
        st.Page(feedback_page, title=frame.t("feedback"), icon=":material/thumbs_up_down:", url_path="feedback"),
        st.Page(teaching_page, title=frame.t("teach"), icon=":material/school:", url_path="teach"),
        st.Page(duplicates_page, title=frame.t("duplicates"), icon=":material/content_copy:", url_path="duplicates"),
        st.Page(adding_page, title=frame.t("adding"), icon=":material/upload:", url_path="add"),
        st.Page(archive_page, title=frame.t("archive"), icon=":material/video_library:", url_path="archive"),
    ],
    position="top",
)
frame.require_access()
frame.notice_other(has_other)
page.run()
