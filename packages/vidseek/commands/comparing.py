"""`vidseek base`: the base, to hold what was taught against."""

from __future__ import annotations

from typing import Annotated

import typer

from vidseek import printing

NOTHING_TAUGHT = (
    "Nothing was taught: the live collection is the base's own, and there is nothing to hold against it. Nothing was done."
)


def base(
    remove: Annotated[bool, typer.Option("--remove", help="Take it away again: collection, bundle, embeddings.")] = False,
    as_json: printing.AsJson = False,
) -> None:
    """Publish the base, without what was taught, beside the live collection: to search with both, side by side.

    Run it again after each `dvc repro`: what is there already is not made twice.
    """
    from vidseek.actions.base import make_base, remove_base
    from vidseek.archive import Archive

    archive = Archive.here()
    if remove:
        removed = remove_base(archive)
        words = "\n".join(f"removed {name}" for name in removed) or "No collection of the base was published."
        printing.tell({"removed": removed}, words, as_json=as_json)
        return
    done = make_base(archive)
    if as_json:
        printing.print_json({"taught": done is not None, **(vars(done) if done else {})})
    elif done is None:
        printing.say(NOTHING_TAUGHT)
    else:
        did = (
            f"{'exported' if done.exported else 'exported before'}, {done.num_embedded} parts embedded, "
            f"{'published' if done.built else 'published before'}" if done.did_something else "there was nothing to do"
        )
        printing.say(f"The base is {done.encoder_version}, its {done.num_clips} clips are in {done.collection}: {did}.")
