"""The page on which videos are uploaded, and the jobs of the archive are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

from serving.page.frame import RETRY_SECONDS, admin_api, ask, local_time, show_notice, show_table, t
from serving.page.shown import upload_address
from vidseek.client import Problem

NUM_JOBS = 50
_STATES = {
    "queued": "job_queued", "running": "job_running", "done": "job_done", "rejected": "job_rejected", "failed": "job_failed",
    "cancelled": "job_cancelled",
}
_MARKS = {"queued": "…", "running": "▶", "done": "✓", "rejected": "✗", "failed": "✗", "cancelled": "–"}
_CHANGES = {"failed": "retry", "cancelled": "retry", "queued": "cancel"}
"""What a visitor may do with a job, by its state."""
MAX_BUTTONS = 8
"""Jobs with a button, the newest first: a thousand that wait need none each."""

_HTML = """
<div class="drop" id="drop">
  <label class="choose">
    <span id="choose"></span><input type="file" id="files" multiple accept="video/*,.mkv,.ts,.mxf,.avi">
  </label>
  <span id="hint"></span>
  <ul id="list" aria-live="polite"></ul>
</div>
"""
_CSS = """
.drop {border: 2px dashed var(--st-border-color, #999); border-radius: .5rem; padding: 1rem; font-family: var(--st-font);
  color: var(--st-text-color); line-height: 1.9;}
.drop.over {border-color: var(--st-primary-color); background: var(--st-secondary-background-color);}
.choose {display: inline-block; position: relative; border-radius: .4rem; padding: .15rem .9rem; margin-right: .5rem;
  background: var(--st-primary-color, #1f5fbf); color: #fff; cursor: pointer;}
.choose input {position: absolute; inset: 0; width: 100%; opacity: 0; cursor: pointer;}
.choose:focus-within {outline: 3px solid var(--st-text-color); outline-offset: 2px;}
ul {list-style: none; margin: 0; padding: 0;}
li {display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin-top: .5rem;}
li .name {overflow-wrap: anywhere; font-weight: 600;}
progress {width: 9rem;}
li button {font: inherit; color: inherit; background: none; border: 1px solid currentColor; border-radius: .4rem;
  padding: 0 .6rem; cursor: pointer;}
li.failed .said {color: var(--st-red-text-color, #b3261e);}
"""
_JS = """
export default function ({ parentElement, data }) {
  const at = id => parentElement.querySelector('#' + id);
  const drop = at('drop'), input = at('files'), list = at('list'), texts = data.texts;
  at('choose').textContent = texts.choose;
  at('hint').textContent = texts.hint;
  drop.dataset.address = data.address;
  if (drop.dataset.ready) return;
  drop.dataset.ready = 'yes';
  const waiting = [];
  let isBusy = false;

  function add(files) {
    for (const file of files) {
      const row = document.createElement('li');
      const make = (tag, name) => { const made = document.createElement(tag); made.className = name; row.append(made);
        return made; };
      const name = make('span', 'name'), bar = make('progress', 'bar');
      const said = make('span', 'said'), stop = make('button', '');
      name.textContent = file.name;
      bar.max = 1; bar.value = 0; bar.setAttribute('aria-label', file.name);
      said.textContent = texts.waits;
      stop.type = 'button'; stop.textContent = texts.stop; stop.setAttribute('aria-label', texts.stop + ': ' + file.name);
      const item = { file, row, bar, said, stop, request: null, isStopped: false };
      stop.onclick = () => {
        item.isStopped = true;
        if (item.request) item.request.abort(); else end(item, texts.stopped, true);
      };
      list.append(row);
      waiting.push(item);
    }
    next();
  }

  function end(item, words, isBad) {
    item.said.textContent = words;
    item.row.classList.toggle('failed', isBad);
    item.bar.remove();
    item.stop.remove();
  }

  function next() {
    if (isBusy) return;
    let item = waiting.shift();
    while (item && item.isStopped) item = waiting.shift();
    if (!item) return;
    if (item.file.size > data.most_bytes) { end(item, texts.failed + ': ' + texts.hint, true); next(); return; }
    isBusy = true;
    const request = item.request = new XMLHttpRequest(), form = new FormData();
    form.append('file', item.file, item.file.name);
    request.upload.onprogress = event => {
      if (!event.lengthComputable) return;
      item.bar.value = event.loaded / event.total;
      item.said.textContent = Math.floor(100 * event.loaded / event.total) + ' % ' + texts.uploading;
    };
    request.onloadend = () => {
      isBusy = false;
      let said = null;
      try { said = JSON.parse(request.responseText); } catch (error) { said = null; }
      if (request.status === 202) end(item, texts.uploaded, false);
      else if (item.isStopped) end(item, texts.stopped, true);
      else end(item, texts.failed + (said && said.error ? ': ' + said.error.message + '. ' + said.error.remedy : ''), true);
      next();
    };
    request.open('POST', drop.dataset.address);
    request.send(form);
  }

  input.onchange = () => { add(input.files); input.value = ''; };
  for (const name of ['dragenter', 'dragover']) drop.addEventListener(name, event => {
    event.preventDefault(); drop.classList.add('over'); });
  for (const name of ['dragleave', 'drop']) drop.addEventListener(name, () => drop.classList.remove('over'));
  drop.addEventListener('drop', event => { event.preventDefault(); add(event.dataTransfer.files); });
}
"""
_uploader = component("vidseek_uploader", html=_HTML, css=_CSS, js=_JS)


def adding_page() -> None:
    """Upload videos; see how far they are."""
    show_notice()
    said = ask(lambda: admin_api().jobs(limit=NUM_JOBS), admin=True)
    address = upload_address(admin_api().key, st.session_state.get("upload_address"))
    st.session_state["upload_address"] = address
    _uploader(key="uploader", data={
        "address": address, "most_bytes": said["max_upload_mb"] * 2**20,
        "texts": {
            "choose": t("choose_videos"), "hint": t("drop_videos", num=said["max_upload_mb"]), "uploading": t("uploading"),
            "waits": t("upload_waits"), "uploaded": t("uploaded"), "failed": t("upload_failed"),
            "stopped": t("upload_stopped"), "stop": t("stop_upload"),
        },
    })
    st.subheader(t("jobs"))
    _show_jobs()


@st.fragment(run_every=RETRY_SECONDS)
def _show_jobs() -> None:
    """Show the newest jobs, again and again: this goes on while videos are uploaded."""
    said = ask(lambda: admin_api().jobs(limit=NUM_JOBS))
    jobs = said["jobs"]
    if not jobs:
        st.caption(t("no_jobs"))
        return
    if not said["is_watched"] and any(job["state"] == "queued" for job in jobs):
        st.info(t("not_watched"))
    for job in [each for each in jobs if each["state"] in _CHANGES][:MAX_BUTTONS]:
        change = _CHANGES[job["state"]]
        with st.container(horizontal=True, vertical_alignment="center", key=f"job-{job['id']}"):
            st.button(t(change), key=f"{change}-{job['id']}", on_click=_change, args=(change, job["id"]))
            st.text(f"{_name(job)}: {t(_STATES[job['state']])}")
    show_table([t("state"), t("job_name"), t("what_came"), t("when")], [
        (f"{_MARKS[job['state']]} {t(_STATES[job['state']])}", _name(job), _told(job), local_time(job["created_at"]))
        for job in jobs
    ])
    if said["total"] > len(jobs):
        st.caption(t("jobs_shown", num=len(jobs), of=said["total"]))


def _change(what: str, job_id: str) -> None:
    changes: dict[str, Callable[[str], Mapping[str, Any]]] = {
        "retry": admin_api().retry_job, "cancel": admin_api().cancel_job,
    }
    try:
        changes[what](job_id)
    except Problem as problem:
        st.session_state["notice"] = problem


def _name(job: Mapping[str, Any]) -> str:
    if job["kind"] == "scan":
        return t("job_scan")
    return t("job_remove", video=job["name"]) if job["kind"] == "remove" else str(job["name"])


def _told(job: Mapping[str, Any]) -> str:
    """Return how far a job is, or what came of it."""
    if job["error"]:
        return f"{job['error']['message']}. {job['error']['remedy']}"
    if job["state"] == "running":
        return f"{job['progress']:.0%} {job['stage']}"
    if job["duplicate"]:
        return t("is_duplicate")
    return t("num_clips", num=job["num_clips"]) if job["num_clips"] is not None else ""
