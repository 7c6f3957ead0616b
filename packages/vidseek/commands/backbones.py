"""`vidseek backbone`: models to begin from, fetched from the model hub or imported from another project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidseek import printing


def backbone_fetch(
    model: Annotated[str, typer.Argument(metavar="ID[@REVISION]", help="As on the hub: openai/clip-vit-base-patch32, or "
                                         "with @ and a branch, a tag or a commit.")],
    use: Annotated[bool, typer.Option("--use", help="Name it in params.yaml, also where another one is named.")] = False,
    as_json: printing.AsJson = False,
) -> None:
    """Fetch a backbone from the model hub into its local cache, and pin it to a commit."""
    from vidseek.archive import Archive
    from vidseek.configuration.hub_pin import pin_backbone
    from vidseek_training.hub import fetch

    done = fetch(model, say=lambda line: printing.say(line, err=True))
    params = Archive.here().params
    pin = pin_backbone(params, done.name, replace_other=use) if params.is_file() else None
    if as_json:
        printing.print_json({
            "name": done.name, "folder": str(done.folder), "files": list(done.files), "num_bytes": done.num_bytes,
            "num_fetched": done.num_fetched, "left_out": list(done.left_out), "is_pickled": done.is_pickled,
            "is_in_params": pin is not None and pin.is_named,
        })
        return
    printing.say(f"{done.name} is here: {len(done.files)} files, {done.num_bytes / 1e6:,.1f} MB; {done.num_fetched} are new")
    if done.is_pickled:
        printing.say("Its weights are of torch's older kind: they are read as weights only, no code of theirs runs.")
    if pin is not None and pin.is_named:
        said = "is named in" if pin.was_there else "is now named in"
        printing.say(f"It {said} {params.name}: run `dvc repro`.")
    else:
        printing.say(f"To use it, write in params.yaml, or run this with --use:\n\nbackbone:\n  name: {done.name}\n")


def backbone_import(
    source: Annotated[Path, typer.Argument(help="A state dict (.pt, .pth, .bin, .safetensors), or a pickled module.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; backbone.name takes it.")],
    base: Annotated[str, typer.Option(help="The backbone that it was trained on: a shipped one, a folder, a hub id.")],
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Read a pickled module too, in a process without "
                                               "network, keys and other files. Only from people you trust.")] = False,
    scale: Annotated[float | None, typer.Option(help="s of W + s A B; by default what the file says.")] = None,
    product: Annotated[str | None, typer.Option(help="How A and B make an update: 'A B', 'B A', '(A B)^T' or '(B A)^T'; "
                                                "by default what fits the shapes.")] = None,
    as_json: printing.AsJson = False,
) -> None:
    """Fold low-rank updates that another project trained (W + s A B) into a backbone of their own."""
    from vidseek_training.importing.imported_backbone import import_backbone

    done = import_backbone(
        source, out, base=base, allow_pickle=allow_pickle, scale=scale, product=product,
        say=lambda line: printing.say(line, err=True),
    )
    if as_json:
        printing.print_json({**vars(done), "folder": str(done.folder)})
        return
    printing.say(f"{done.folder} is {done.base} with {done.num_folded} weights as W + s A B ({', '.join(done.orders)}) and "
                 f"{done.num_taken} others of {source.name}.")
    printing.say(f"To use it, write in params.yaml:\n\nbackbone:\n  name: {out}\n")
