"""The page that searches."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import streamlit as st

from serving.page import query
from serving.page.frame import api, ask, has_confidence, show_notice, show_problem, t
from serving.page.moments import LIKE, UNLIKE, show_card, show_example, show_player
from serving.page.saved.saved_page import show_save
from serving.page.settings import MAX_UPLOAD_MB
from vidseek.client import Problem
from vidseek.matches import chance_if_unlikely

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
CLIPS = ("mp4", "m4v", "mov", "mkv", "webm", "avi", "ts")
MAX_FILES = 8
LOOKUPS = 8
"""Clips that are looked up at once for their channel and date."""

Files = Sequence[tuple[str, bytes]]
_IN_OPTIONS = {"not", "channel", "category", "after", "before", "shortest", "longest", "sure", "in"}
"""What the address says that is under the fold."""
_ENDS = (("least", "own_from"), ("greatest", "own_to"))
_OWN = "f_"
"""Before the name of a declared field, in the address."""


def search_page() -> None:
    """Ask, filter, look, play."""
    show_notice()
    written = st.text_input(
        t("look_for"), key="q", bind="query-params", type="search", placeholder=t("look_for_example"),
        help=t("look_for_help"),
    ) or ""
    facets = ask(lambda: api().facets())
    files, asked = _options(written, facets)
    _show_examples(asked)
    if playing := query.playing():
        show_player(playing)
    if not (asked.texts or asked.clip_ids or files):
        st.html(f"<p>{html.escape(t('begin', num=facets['num_clips']) if facets['num_clips'] else t('empty_archive'))}</p>")
        return
    queries = asked.texts or ("",)
    if len(queries) > query.MAX_QUERIES:
        st.info(t("too_many", num=query.MAX_QUERIES))
        queries = queries[: query.MAX_QUERIES]
    for column, (place, words) in zip(st.columns(len(queries)), enumerate(queries), strict=True):
        with column:
            _show_answer(words, place, asked, files, looks_up=_has_facts(facets))


def _options(written: str, facets: Mapping[str, Any]) -> tuple[Files, query.QueryOptions]:
    # Expanded if the address sets filters, so that visitors see why there are few results.
    named = {name for name in st.query_params if name in _IN_OPTIONS or name.startswith(_OWN)}
    is_open = st.session_state.setdefault("options_open", bool(named))
    with st.expander(t("more_options"), expanded=is_open):
        given = st.file_uploader(
            t("files"), type=[*PICTURES, *CLIPS], accept_multiple_files=True, max_upload_size=MAX_UPLOAD_MB,
            key=f"files-{st.session_state.get('files', 0)}",
        )
        negative_text = st.text_input(t("not"), key="not", bind="query-params") or ""
        filters = _filters(facets)
        st.session_state.setdefault("in", query.fields())  # bound, the address would have the words of one language
        fields = st.pills(
            t("look_in"), query.FIELDS, selection_mode="multi", key="in", format_func=t, on_change=query.keep_fields,
            help=t("look_in_help"),
        ) or []
        sure = 0.0
        if has_confidence() or "sure" in st.query_params:  # of an address that asks for it the API says why it cannot be
            sure = st.slider(t("sure"), 0.0, 0.95, 0.0, 0.05, format="percent", key="sure", bind="query-params")
    files = [
        ("clip" if file.name.lower().endswith(CLIPS) else "image", file.getvalue()) for file in (given or [])[:MAX_FILES]
    ]
    return files, query.QueryOptions(
        query.split_queries(written), negative_text.strip(), query.examples("like"), query.examples("unlike"), filters,
        float(sure), query.num_shown(), tuple(fields) if len(fields) < len(query.FIELDS) else (),
    )


def _filters(facets: Mapping[str, Any]) -> dict[str, Any]:
    chosen: dict[str, list[str]] = {}
    with st.container(horizontal=True):
        for field in ("channel", "category"):
            values = [each["value"] for each in facets[field]]
            chosen[field] = (
                st.multiselect(t(field), values, key=field, bind="query-params", width=280, placeholder=t("choose"))
                if values else []
            )
        has_times = facets["published_at"] is not None
        after = st.date_input(t("after"), None, key="after", bind="query-params", width=180) if has_times else None
        before = st.date_input(t("before"), None, key="before", bind="query-params", width=180) if has_times else None
        shortest, longest = (
            st.number_input(t(name), min_value=0, value=None, step=1, key=name, bind="query-params", width=200)
            for name in ("shortest", "longest")
        )
    filters = query.filters_of(
        channels=chosen["channel"], categories=chosen["category"], after=after, before=before, shortest=shortest,
        longest=longest,
    )
    return {**filters, **_own_filters(facets.get("fields") or {})}


def _own_filters(facets: Mapping[str, Any]) -> dict[str, Any]:
    """Show a widget for each declared field that has values, and return the filters that are set."""
    filters: dict[str, Any] = {}
    with st.container(horizontal=True):
        for name, facet in facets.items():
            wanted = _own_filter(name, facet)
            if wanted is not None:
                filters[name] = wanted
    return filters


def _own_filter(name: str, facet: Mapping[str, Any]) -> Any:
    key = f"{_OWN}{name}"
    if facet["values"]:
        values = [each["value"] for each in facet["values"]]
        chosen = st.multiselect(name, values, key=key, bind="query-params", width=280, placeholder=t("choose"))
        return query.own_filter(facet, chosen, None, None)
    if facet["least"] is None:
        return None
    with st.container(horizontal=True, width=416):  # both ends in one row
        ends = [_own_end(facet, place, t(end, field=name), key) for place, end in _ENDS]
    return query.own_filter(facet, [], *ends)


def _own_end(facet: Mapping[str, Any], place: str, label: str, key: str) -> Any:
    """Show the widget for one end of a range, and return what it holds."""
    told: dict[str, Any] = {"key": f"{key}_{place}", "bind": "query-params", "width": 200}
    if facet["kind"] == "datetime":
        return st.date_input(label, None, **told)
    step = 1 if facet["kind"] == "integer" else None
    return st.number_input(label, value=None, step=step, placeholder=str(facet[place]), **told)


def _show_examples(asked: query.QueryOptions) -> None:
    if not (asked.clip_ids or asked.negative_ids):
        return
    st.write(t("examples"))
    with st.container(horizontal=True, gap="small"):
        for name, sign, clip_ids in (("like", LIKE, asked.clip_ids), ("unlike", UNLIKE, asked.negative_ids)):
            for place, clip_id in enumerate(clip_ids):
                show_example(clip_id, place=f"{name}-{place}", sign=sign)


def _show_answer(words: str, place: int, asked: query.QueryOptions, files: Files, *, looks_up: bool) -> None:
    with st.spinner(t("searching"), show_time=False):
        try:
            answer = _search(asked.body(words), files)
        except Problem as problem:
            if problem.is_passing:
                ask(lambda: _search(asked.body(words), files))  # shows it, and waits
            show_problem(problem)
            return
        facts = _facts_of(answer) if looks_up else {}
    hits = answer["hits"]
    if words and len(asked.texts) > 1:
        st.html(f'<div class="vs-title">{html.escape(words)}</div>')
    if not hits:
        st.info(t("nothing"))
        if not files:
            show_save(asked.body(words), hits, place=place)
        return
    chance = chance_if_unlikely(hits)
    if chance is not None:
        st.info(t("unlikely", percent=f"{chance:.0%}"))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(t("moment" if len(hits) == 1 else "moments", num=len(hits)))
        if not files:
            show_save(asked.body(words), hits, place=place)
    with st.container(horizontal=True, gap="small"):
        for number, hit in enumerate(hits):
            show_card(hit, place=f"{place}-{number}", asked=words, facts=facts.get(hit["best_clip_id"]))
    if answer["next_offset"] is not None and asked.num < query.MAX_SHOWN:
        st.button(t("more"), key=f"more-{place}", on_click=query.show_more)


def _search(body: Mapping[str, Any], files: Files) -> dict[str, Any]:
    """Return the API's answer; with files, kept for this visitor, so that a click does not send them again."""
    if not files:
        return api().search(body)
    kept: dict[Any, dict[str, Any]] = st.session_state.setdefault("kept", {})
    key = (repr(sorted(body.items())), tuple((name, hash(content)) for name, content in files))
    if key not in kept:
        kept.clear()
        kept[key] = api().search(body, files=files)
    return kept[key]


def _has_facts(facets: Mapping[str, Any]) -> bool:
    return bool(facets["channel"] or facets["category"] or facets["published_at"])


def _facts_of(answer: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Channel, category and date of each best clip; one that went away meanwhile is left out."""
    clip_ids = [hit["best_clip_id"] for hit in answer["hits"]]
    with ThreadPoolExecutor(LOOKUPS) as threads:
        found = threads.map(_fact_of, [api()] * len(clip_ids), clip_ids)
        return {clip_id: fact for clip_id, fact in zip(clip_ids, found, strict=True) if fact is not None}


def _fact_of(asked: Any, clip_id: str) -> dict[str, Any] | None:
    try:
        fact: dict[str, Any] = asked.clip(clip_id)
    except Problem:
        return None
    return fact
