"""The archive grows: `vidseek add`, `vidseek watch`, `vidseek jobs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidseek import printing
from vidseek_media.errors import InputRejected

if TYPE_CHECKING:
    from vidseek.archive import Archive
    from vidseek.jobs.job_table import Job

_MARKS = {"queued": "dim", "running": "cyan", "done": "green", "rejected": "yellow", "failed": "red", "cancelled": "dim"}


def add(
    videos: Annotated[list[str], typer.Argument(metavar="FILE|URL...", help="Video files, or URLs of allowed hosts.")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Go on until they are searched; else only queue them.")]
    = True,
    as_json: printing.AsJson = False,
) -> None:
    """Add videos to the archive: check them, copy them into the source, and run what they need to be searched."""
    from vidseek.archive import Archive
    from vidseek.jobs.submitting import Queue
    from vidseek.jobs.watching import work_on

    archive = Archive.here()
    queue = Queue(archive)
    jobs: list[Job] = []
    refused: list[tuple[str, InputRejected]] = []
    for video in videos:
        try:
            jobs.append(queue.add_url(video) if "://" in video else queue.add_file(Path(video)))
        except InputRejected as error:
            refused.append((video, error))
    if wait and jobs:
        def say(line: str) -> None:
            if not as_json:
                printing.say(line, err=True)

        jobs = work_on(
            archive, [job.id for job in jobs], told=lambda job: say(_ended(job)),
            at_stage=lambda stage: say(f"  {stage} ..."), waits=lambda holder: say(f"waits for {holder}"),
        )
    if as_json:
        printing.print_json({
            "jobs": [job.to_json() for job in jobs],
            "refused": [{"name": name, "code": each.code, "message": each.message, "remedy": each.remedy}
                        for name, each in refused],
        })
    else:
        for name, each in refused:
            printing.say(f"{name}: {each}")
        _say_what_is_left(jobs)
    raise typer.Exit(_exit_code(jobs, any_refused=bool(refused)))


def watch(
    once: Annotated[bool, typer.Option("--once", help="Work on what is there now, and end: for cron.")] = False,
    as_json: printing.AsJson = False,
) -> None:
    """Work on all jobs of the archive, one after the other: of the inbox, of the API, and when the source changes."""
    from vidseek.actions.page import until_told_to_stop
    from vidseek.archive import Archive
    from vidseek.jobs.watching import Watch, watching

    archive = Archive.here()
    watcher = Watch(
        archive, told=lambda job: None if as_json else printing.say(_ended(job)),
        said=lambda line: printing.say(line, err=True),
    )
    jobs: list[Job] = []
    with watching(archive), until_told_to_stop():
        if once:
            jobs = watcher.once()
        else:
            where = (archive.root / watcher.settings.inbox).resolve()
            printing.say(f"Watches {where} and the source; stop with Ctrl-C", err=True)
            watcher.forever()
    if as_json:
        printing.print_json({"jobs": [job.to_json() for job in jobs]})
    raise typer.Exit(_exit_code(jobs, any_refused=False))


def jobs(
    action: Annotated[str, typer.Argument(metavar="[list|show|retry|cancel]", help="What to do.")] = "list",
    job_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Of a job; `retry` without one takes all that "
                                                 "failed.")] = None,
    num: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many are listed, the newest first.")] = 20,
    as_json: printing.AsJson = False,
) -> None:
    """List the jobs of the archive, try one again, or take one out of the queue."""
    from vidseek.archive import Archive

    archive = Archive.here()
    if action == "list":
        _list(archive, num, as_json=as_json)
        return
    if action not in ("show", "retry", "cancel"):
        raise typer.BadParameter(f"{action!r} is none of list, show, retry, cancel")
    if job_id is None and action != "retry":
        raise typer.BadParameter(f"say which job to {action}")
    changed = _changed(archive, action, job_id)
    if as_json:
        printing.print_json({"jobs": [job.to_json() for job in changed]})
        return
    for job in changed:
        printing.say(_ended(job) if job.is_over else f"{job.name}: {job.state} ({job.id})")
    if action == "retry":
        _say_what_is_left(changed)


def _changed(archive: Archive, action: str, job_id: str | None) -> list[Job]:
    from vidseek.jobs.job_table import JobTable

    table = JobTable(archive.jobs)
    if job_id is None:
        failed, _ = table.list_jobs(limit=2**31, states=("failed",))
        return [table.retry(job.id) for job in failed]
    return [{"show": table.get, "retry": table.retry, "cancel": table.cancel}[action](job_id)]


def _list(archive: Archive, num: int, *, as_json: bool) -> None:
    from vidseek.jobs.job_table import JobTable
    from vidseek.jobs.watching import watcher_of

    found, total = JobTable(archive.jobs).list_jobs(limit=num)
    watcher = watcher_of(archive)
    if as_json:
        shown = [job.to_json() for job in found]
        printing.print_json({"jobs": shown, "total": total, "watched_by": str(watcher) if watcher else None})
        return
    printing.show(printing.table(
        ["job", "state", "name", "what came of it"],
        [(job.id, f"[{_MARKS[job.state]}]{job.state}[/]", printing.escape(job.name), printing.escape(_told(job)))
         for job in found],
    ), nothing="No jobs.")
    if watcher is None and any(job.state == "queued" for job in found):
        printing.say("Nobody works on them: run `vidseek watch`.")


def _told(job: Job) -> str:
    """What came of a job, or how far it is, in one line."""
    if job.state == "running":
        return f"{job.stage or 'is checked'}, {job.progress:.0%}"
    if job.code:
        return f"{job.reason} ({job.code})"
    if job.state != "done" or job.duplicate or job.kind != "add":
        return job.note
    return f"{job.num_clips} clips of video {job.video_id}"


def _ended(job: Job) -> str:
    seconds = job.to_json()["seconds"]
    took = f", in {seconds:.1f} s" if job.state == "done" and seconds is not None else ""
    told = _told(job)
    remedy = f". {job.remedy}" if job.remedy else ""
    return f"{job.name}: {job.state}{took}{': ' if told else ''}{told}{remedy}"


def _say_what_is_left(found: list[Job]) -> None:
    for note in dict.fromkeys(job.note for job in found if job.state == "done" and job.note and not job.duplicate):
        printing.say(f"Left: {note}.")
    if any(job.state == "queued" for job in found):
        printing.say("Queued: `vidseek watch` (or the next `vidseek watch --once`) works on it.")


def _exit_code(found: list[Job], *, any_refused: bool) -> int:
    from vidseek_media.errors import ServiceError

    if any(job.state == "failed" for job in found):
        return ServiceError.exit_code
    return InputRejected.exit_code if any_refused or any(job.state == "rejected" for job in found) else 0
