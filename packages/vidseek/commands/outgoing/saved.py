"""`vidseek saved`: searches that are asked of what each publish brings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vidseek import printing


def saved_add(
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="What to look for, in words.")] = None,
    name: Annotated[str, typer.Option(help="For people; the words by default.")] = "",
    webhook: Annotated[str, typer.Option(help="Where new moments are sent: a URL of a host in saved.webhook_hosts.")] = "",
    clip_ids: Annotated[list[str] | None, typer.Option("--clip-id", help="The best_clip_id of a hit: more of this.")] = None,
    negative_texts: Annotated[list[str] | None, typer.Option("--negative", help="What they shall not show.")] = None,
    negative_ids: Annotated[list[str] | None, typer.Option("--negative-clip-id", help="Less of this.")] = None,
    channel: Annotated[list[str] | None, typer.Option(help="Only of this channel; again for one of several.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="Only of this category.")] = None,
    condition: Annotated[list[str] | None, typer.Option("--filter", help="As of a search: camera=B, take>=3.")] = None,
    fields: Annotated[str, typer.Option("--in", help="What is looked at: visual, captions, speech, ocr.")] = "",
    min_confidence: Annotated[float | None, typer.Option(min=0, max=1, help="From which a moment counts; by default "
                                                         "saved.min_confidence.")] = None,
    min_score: Annotated[float | None, typer.Option(help="The least score, where a query has no confidence.")] = None,
    as_json: printing.AsJson = False,
) -> None:
    """Save a search: what later publishes bring for it is listed, in a feed, and sent to a webhook."""
    from vidseek.actions.queries import filters_of
    from vidseek.archive import Archive, open_text_searcher
    from vidseek.saved.records import SavedQuery
    from vidseek.saved.saving import save_search
    from vidseek_media.terminal.progress import waiting

    if not (texts or clip_ids):
        raise typer.BadParameter("say what to look for: TEXT or --clip-id")
    archive = Archive.here()
    filters = filters_of(
        condition or [], channels=channel or [], categories=category or [], after=None, before=None
    )
    query = SavedQuery(
        tuple(texts or ()), tuple(negative_texts or ()), tuple(clip_ids or ()), tuple(negative_ids or ()), filters,
        tuple(each.strip() for each in fields.split(",") if each.strip()), min_confidence, min_score,
    )
    with waiting("opening the encoder and the index"):
        searcher = open_text_searcher(archive)
    found = save_search(archive, query, searcher, name=name, webhook=webhook)
    if as_json:
        printing.print_json(found.to_json())
        return
    sure = found.query.min_confidence or 0.0
    printing.say(f"Saved as {found.id}, from {_threshold(sure, found.query.min_score)}: {found.num_before} moments of the "
                 "archive are there now. What later publishes bring is new.")


def _threshold(min_confidence: float, min_score: float | None) -> str:
    """Return from where on a moment counts."""
    return f"score {min_score:g}" if min_score is not None else f"confidence {min_confidence:g}"


def saved_list(
    search_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="List the newest moments of this one.")] = None,
    as_json: printing.AsJson = False,
) -> None:
    """List the saved searches, or the newest moments of one."""
    from vidseek.archive import Archive
    from vidseek.saved.listing import list_saved, newest

    archive = Archive.here()
    content = newest(archive, search_id) if search_id is not None else {"saved": list_saved(archive)}
    if as_json:
        printing.print_json(content)
    elif search_id is not None:
        _show_moments(content["moments"])
    else:
        _show_searches(content["saved"])


def _show_searches(found: list[dict[str, Any]]) -> None:
    rows = [
        (each["id"], printing.escape(each["name"]),
         _threshold(each["query"]["min_confidence"] or 0.0, each["query"]["min_score"]), str(each["num_new"]),
         printing.escape(each["webhook_host"] or ""), printing.escape(each["error"]["message"] if each["error"] else ""))
        for each in found
    ]
    names = ["id", "name", "from", "new", "webhook", "fault"]
    printing.show(printing.table(names, rows, whole=["id"]), nothing="No search is saved.")


def _show_moments(moments: list[dict[str, Any]]) -> None:
    rows = [
        (each["found_at"], printing.escape(each["uri"]), printing.moment_name(each),
         "" if each["confidence"] is None else f"{each['confidence']:.2f}",
         printing.escape(" ".join(filter(None, [each["delivery"] or "", each["told"]]))))
        for each in moments
    ]
    names = ["found", "video", "moment", "confidence", "webhook"]
    printing.show(printing.table(names, rows, whole=["moment"]), nothing="Nothing new so far.")


def saved_remove(
    search_id: Annotated[str, typer.Argument(metavar="ID", help="As `vidseek saved list` has it.")],
    as_json: printing.AsJson = False,
) -> None:
    """Remove a saved search with its moments."""
    from vidseek.archive import Archive
    from vidseek.saved.saved_table import SavedTable

    SavedTable(Archive.here().saved).remove(search_id)
    printing.tell({"removed": search_id}, "Removed.", as_json=as_json)


def saved_run(as_json: printing.AsJson = False) -> None:
    """Look at what was published since the last look, and send what is due. A publish and `vidseek watch` do it too."""
    from dataclasses import asdict

    from vidseek.archive import Archive
    from vidseek.saved.after_publish import delivered_told, looked_told
    from vidseek.saved.looking import look
    from vidseek.saved.webhooks import deliver

    archive = Archive.here()
    looked = look(archive)
    sent = deliver(archive)
    if as_json:
        new = [{"search_id": each.search_id, **each.to_json()} for each in looked.new]
        printing.print_json({**asdict(looked), "new": new, "delivery": asdict(sent)})
        return
    lines = [*looked_told(looked), *delivered_told(sent)]
    printing.say("\n".join(lines) or "Nothing new.")


def saved_feed(
    search_id: Annotated[str, typer.Argument(metavar="ID", help="As `vidseek saved list` has it.")],
    kind: Annotated[Literal["atom", "json"], typer.Option("--format", help="Atom, or JSON Feed.")] = "atom",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write it to this file.")] = None,
    as_json: printing.AsJson = False,
) -> None:
    """Print the feed of a saved search, or write it where a web server has it."""
    from vidseek.archive import Archive
    from vidseek.edit.export import write_export
    from vidseek.saved.feeds import atom_feed, json_feed
    from vidseek.saved.listing import newest_moments

    search, moments = newest_moments(Archive.here(), search_id)
    is_json = as_json or kind == "json"
    text = json.dumps(json_feed(search, moments), indent=2, ensure_ascii=False) if is_json else (
        atom_feed(search, moments).decode()
    )
    if out is None:
        printing.say(text)
        return
    write_export(out, f"{text}\n")
