"""What all pages share: language, access, the API, looks, and how a problem is shown."""

from __future__ import annotations

import hmac
import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from serving.page.settings import PageSettings
from serving.page.texts import LANGUAGES, text
from vidseek.client import Api, Problem

Result = TypeVar("Result")
RETRY_SECONDS = 2
MODELS_SECONDS = 20
"""So long a base that was published, or taken away, may go unnoticed."""

_LOOKS = """<style>
.block-container {padding-top: 4.2rem; max-width: 84rem;}
.vs-shot {position: relative; aspect-ratio: 16/9; background: #14171c; border-radius: .4rem; overflow: hidden;}
.vs-shot img {width: 100%; height: 100%; object-fit: contain; display: block;}
.vs-time {position: absolute; right: .4rem; bottom: .4rem; background: rgba(0,0,0,.75); color: #fff;
  font-size: .8rem; padding: .05rem .4rem; border-radius: .25rem; font-variant-numeric: tabular-nums;}
.vs-title {font-weight: 600; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; margin-top: .4rem;}
.vs-facts {font-size: .85rem; opacity: .75; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;}
.vs-whole {white-space: normal; overflow-wrap: anywhere;}
.vs-said {white-space: normal; overflow-wrap: anywhere; display: -webkit-box; -webkit-line-clamp: 2;
  -webkit-box-orient: vertical;}
.vs-video {width: 100%; max-height: 52vh; object-fit: contain; background: #000; border-radius: .4rem; display: block;}
.vs-file {font-size: .85rem; margin-top: .4rem;}
.vs-table {overflow-x: auto;}
.vs-table table {border-collapse: collapse; min-width: 50%;}
.vs-table th, .vs-table td {text-align: left; vertical-align: top; padding: .35rem 1rem .35rem 0; overflow-wrap: anywhere;
  min-width: 4.2rem; border-bottom: 1px solid rgba(128,128,128,.3);}
.vs-table a {color: inherit;}
[class*="st-key-duplicate-"] .vs-shot {max-width: 22rem;}
.vs-problem {border-left: .3rem solid #c62828; background: rgba(198,40,40,.1); padding: .7rem 1rem; border-radius: .3rem;
  overflow-wrap: anywhere;}
.vs-problem p {margin: .3rem 0 0 0;}
[class*="st-key-card-"] {min-width: 0;}
[class*="st-key-card-"] button {padding: .1rem .5rem; min-height: 2rem;}
@media (max-width: 640px) {
  .vs-table th, .vs-table td {padding-right: .6rem;}
  .block-container {padding-left: 1rem; padding-right: 1rem;}
  [class*="st-key-card-"], :has(> [class*="st-key-card-"]) {width: 100% !important; max-width: 100% !important;}
  :has(> [class*="st-key-card-"]) {flex: 1 1 100% !important;}
  :is(.st-key-compared, [class*="st-key-duplicate-"]) [data-testid="stHorizontalBlock"]:has(> [data-testid="stColumn"])
    {flex-wrap: nowrap; gap: .5rem;}
  :is(.st-key-compared, [class*="st-key-duplicate-"]) [data-testid="stColumn"] {min-width: 0; flex: 1 1 0;}
}
</style>"""


def show_appearance() -> None:
    """Load the page's own style sheet."""
    st.html(_LOOKS)


def t(name: str, **values: object) -> str:
    """Return the text of that name in the visitor's language."""
    return text(language(), name, **values)


def language() -> str:
    """en or ko: what the visitor chose, or the address says, or else the browser."""
    chosen = st.session_state.get("lang") or st.query_params.get("lang")
    return str(chosen) if chosen in LANGUAGES else _browser_language()


def choose_language() -> None:
    """Let the visitor choose; the address has it, on every page."""
    with st.sidebar:
        names = list(LANGUAGES)
        st.session_state["lang"] = st.selectbox(
            t("language"), names, index=names.index(language()), format_func=lambda name: LANGUAGES[name]
        )
    if st.session_state["lang"] != _browser_language():
        st.query_params["lang"] = st.session_state["lang"]
    else:
        st.query_params.pop("lang", None)


def _browser_language() -> str:
    return "ko" if (st.context.locale or "").lower().startswith("ko") else "en"


def settings() -> PageSettings:
    """Return the settings in the environment."""
    return PageSettings.of_environment()


def api() -> Api:
    """Return the API, asked with the page's key."""
    chosen = settings()
    return _api(chosen.url, chosen.key)


@dataclass(frozen=True)
class Other:
    """Whom else the same is asked, to compare."""

    api: Api
    body: Mapping[str, str]
    """What goes into its searches beside the query."""
    is_current: bool | None
    """Whether it searches the same clips; None where nobody knows."""


def other() -> Other | None:
    """Return the second model as `find_other` does; None also if the API has a problem, which the search reports."""
    try:
        return find_other()
    except Problem:
        return None


@st.fragment(run_every=MODELS_SECONDS)
def notice_other(is_there: bool) -> None:
    """Draw a page that is open anew when there is something to compare with, or no more.

    Args:
        is_there: what the page was drawn for.
    """
    if (other() is not None) != is_there:
        st.rerun()


def find_other() -> Other | None:
    """Return the API that the page was told to compare with, or else this one's base; None where there is neither.

    Raises:
        Problem: the API does not say what it has.
    """
    chosen = settings()
    if chosen.other_url:
        return Other(_api(chosen.other_url, chosen.key), {}, None)
    models = _models(chosen.url, chosen.key)
    base = next((each for each in models if each["id"] == "base"), None)
    if base is None or base["encoder_version"] == models[0]["encoder_version"]:
        return None  # nothing was taught since
    return Other(api(), {"model": "base"}, base["is_current"])


def has_confidence() -> bool:
    """Whether moments of the live index have a confidence; yes where the API does not say."""
    chosen = settings()
    try:
        return bool(_models(chosen.url, chosen.key)[0]["has_confidence"])
    except Problem:
        return True


def admin_api() -> Api:
    """Return the API, asked with the admin key of the page or of the visitor, where there is one."""
    chosen = settings()
    of_page = None if chosen.is_open else chosen.admin_key
    return _api(chosen.url, st.session_state.get("admin_key_given") or of_page or chosen.key)


@st.cache_data(show_spinner=False, max_entries=8, ttl=MODELS_SECONDS)
def _models(url: str, key: str | None) -> list[dict[str, Any]]:
    return _api(url, key).models()


@st.cache_resource(show_spinner=False, max_entries=8)
def _api(url: str, key: str | None) -> Api:
    return Api(url, key=key)


def require_access() -> None:
    """On a page that others can reach: let in who knows the API's key, and stop for all others."""
    chosen = settings()
    if not chosen.is_open or st.session_state.get("is_let_in"):
        return
    st.write(t("key_asked"))
    with st.form("access"):
        given = st.text_input(t("key"), type="password")
        if st.form_submit_button(t("enter"), type="primary"):
            if hmac.compare_digest(given.encode(), (chosen.key or "").encode()):
                st.session_state["is_let_in"] = True
                st.rerun()
            show_problem(Problem(t("key_wrong")))
    st.stop()


def ask(work: Callable[[], Result], *, admin: bool = False) -> Result:
    """Call `work`; if the API has a problem, show it and stop the page.

    A problem that may pass is looked at again until it has. With `admin`, a visitor whom the API does not let in is asked
    for the admin key.
    """
    try:
        with st.spinner(t("working")):  # shows itself after half a second
            return work()
    except Problem as problem:
        if admin and problem.name == "key_wrong":
            ask_for_admin_key()
            st.stop()
        show_problem(problem)
        if problem.is_passing:
            _wait_for_api()
        st.stop()
    raise AssertionError("st.stop leaves the page")


def show_problem(problem: Problem) -> None:
    """Show the API's message and remedy as text. For a wrong key the remedy is about the page, since visitors send no
    headers.
    """
    said = t("key_of_page") if problem.name == "key_wrong" else problem.remedy
    remedy = f"<p><b>{html.escape(t('remedy'))}:</b> {html.escape(said)}</p>" if said else ""
    st.html(f'<div class="vs-problem" role="alert"><b>{html.escape(problem.message)}</b>{remedy}</div>')


@dataclass(frozen=True)
class Link:
    """A cell of a table that leads to another of our pages."""

    address: str
    """As from the page that shows it: `./?q=red`."""
    text: str


def show_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Show a table of texts. Streamlit's own renders Markdown, so a name from the archive could load a picture."""
    head = "".join(f"<th scope='col'>{html.escape(each)}</th>" for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(each)}</td>' for each in row)}</tr>" for row in rows)
    st.html(f'<div class="vs-table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def _cell(content: object) -> str:
    if isinstance(content, Link):
        return f'<a href="{html.escape(content.address, quote=True)}" target="_self">{html.escape(content.text)}</a>'
    return html.escape(str(content))


def show_notice() -> None:
    """Show the error of the last pressed button once."""
    problem = st.session_state.pop("notice", None)
    if problem is not None:
        show_problem(problem)


def ask_for_admin_key() -> None:
    """Ask the visitor for the admin key, and say where it was wrong."""
    if st.session_state.get("admin_key_given"):
        show_problem(Problem(t("key_wrong")))
    else:
        st.info(t("admin_key_asked"))
    with st.form("admin-access"):
        given = st.text_input(t("admin_key"), type="password")
        if st.form_submit_button(t("enter"), type="primary") and given:
            st.session_state["admin_key_given"] = given
            st.rerun()


@st.fragment(run_every=RETRY_SECONDS)
def _wait_for_api() -> None:
    st.caption(t("waiting"))
    if api().is_ready():
        st.rerun()


def local_time(said_at: str, *, to: str = "minutes") -> str:
    """Return a time of the API by the visitor's clock: `2026-11-27 17:16`. UTC, and it says so, where the browser names no
    zone.
    """
    moment, zone = datetime.fromisoformat(said_at), ""
    try:
        moment = moment.astimezone(ZoneInfo(st.context.timezone or ""))
    except (ZoneInfoNotFoundError, ValueError):
        moment, zone = moment.astimezone(UTC), " UTC"
    return moment.replace(tzinfo=None).isoformat(sep=" ", timespec=to) + zone


def span(start_ms: int, end_ms: int) -> str:
    """From and to, in whole seconds that hold all of it: `0:00 – 0:01`."""
    return f"{clock(start_ms)} – {clock(end_ms + 999)}"


def clock(time_ms: int) -> str:
    """Minutes and seconds, rounded down, with hours where there are some: `1:02`, `1:00:00`."""
    minutes, seconds = divmod(time_ms // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
