"""LoRA on real pictures: what the small CLIP of `flickr.py` gains on exercise photos, and what it loses on Flickr8k.

    python -m bench.teaching.flickr_adapt     (after bench.teaching.flickr; adds to bench/flickr.json)

522 photos of exercises, each with its name and equipment and with the first sentence of its instructions; photos that occur
twice are on one side. Vidseek's own training code learns from two thirds; the learning rate is chosen on validation photos,
and test photos are looked at once. Every interval is paired, and draws pictures with all their captions.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.teaching import flickr
from vidseek_encoder.preprocess import Resizing, resize_frame
from vidseek_encoder.tokenize import Tokenizer as Texts
from vidseek_media.splitting.video_groups import groups_of
from vidseek_quality.intervals import interval
from vidseek_training import backbones
from vidseek_training.dataset.pair_set import PairSet
from vidseek_training.dataset.sampling import Data
from vidseek_training.evaluation.embedding import embed_pairs
from vidseek_training.evaluation.metrics import Ranks, summarise
from vidseek_training.evaluation.retrieval_metrics import judge
from vidseek_training.fitting.trainer import Trainer
from vidseek_training.settings import TrainSettings

RATES = (5.0e-4, 2.0e-3)
SETTINGS = TrainSettings(
    rank=16, alpha=32, dropout=0.1, targets=("attention", "mlp", "projections", "token_embedding", "stem"), steps=240,
    batch=32, evaluate_every=40, patience=100, brightness=0.2, shift_share=0.1,
)
REPLAY = {"replay": 32, "replay_weight": 0.5, "replay_anchor": 4.0}
NUM_TEST, NUM_VALIDATION, NUM_REPLAYED = 130, 60, 1500


def read_photos() -> flickr.Pictures:
    """The exercise photos, squashed to what the model takes."""
    folder = flickr.REALDATA / "B_image_text" / "exercise_photos"
    names, pictures, captions = [], [], []
    with (folder / "captions.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            with Image.open(folder / "images" / row["image"]) as picture:
                pixels = resize_frame(np.asarray(picture.convert("RGB")), Resizing(flickr.SIDE, "squash"))
            names.append(row["image"])
            pictures.append(pixels)
            named = ", ".join(row[key] for key in ("name", "equipment", "primary_muscles") if row[key])
            captions.append([named, row["instructions"].split(". ")[0]])
    return flickr.Pictures(names, np.stack(pictures), captions)


def split(photos: flickr.Pictures) -> dict[str, flickr.Pictures]:
    """Photos of train, validation and test; those that occur twice on one side."""
    with (flickr.REALDATA / "E_near_duplicates" / "exercise_photo_inthewild_dups.csv").open(newline="") as file:
        twice = [(row["a"], row["b"]) for row in csv.DictReader(file)]
    groups = groups_of(photos.names, [pair for pair in twice if set(pair) <= set(photos.names)])
    names = sorted(set(groups.values()))
    place_of = dict(zip(names, np.random.default_rng(0).permutation(len(names)), strict=True))
    places = np.array([place_of[groups[name]] for name in photos.names])
    sides = {
        "test": places < NUM_TEST, "validation": (places >= NUM_TEST) & (places < NUM_TEST + NUM_VALIDATION),
        "train": places >= NUM_TEST + NUM_VALIDATION,
    }
    return {name: _some(photos, np.flatnonzero(chosen)) for name, chosen in sides.items()}


def _some(pictures: flickr.Pictures, rows: NDArray[np.int64]) -> flickr.Pictures:
    return flickr.Pictures(
        [pictures.names[row] for row in rows], pictures.pictures[rows], [pictures.captions[row] for row in rows]
    )


def adapt(folder: Path) -> dict[str, Any]:
    """Train without and with replay; gains inside and losses outside."""
    base = backbones.load(folder)
    texts = Texts.load(base.spec.tokenizer, context=base.spec.context_length, pad_id=base.spec.pad_id)
    photos = {name: flickr.pairs_of(each, texts) for name, each in split(read_photos()).items()}
    dev = flickr.pairs_of(flickr.read_flickr(flickr.REALDATA / "B_image_text" / "flickr8k_dev", side=flickr.SIDE), texts)
    general = _general(texts)
    before = {"photos": _ranks(base, photos["test"]), "flickr8k": _ranks(base, dev)}
    report: dict[str, Any] = {
        "photos": {name: len(set(each.table.clip_id)) for name, each in photos.items()},
        "settings": SETTINGS.model_dump(mode="json"), "replay": REPLAY,
        "base": {"photos": _figures(before["photos"], photos["test"]), "flickr8k": _figures(before["flickr8k"], dev)},
    }
    for name, replayed in (("without replay", None), ("with replay", general)):
        best: tuple[float, float, Any] | None = None
        for rate in RATES:
            settings = SETTINGS.model_copy(update={"learning_rate": rate, **(REPLAY if replayed else {})})
            torch.manual_seed(settings.seed)
            training = Trainer(backbones.load(folder), settings, Data(photos["train"], photos["validation"], replayed))
            training.run()
            score = max(curve["validation_mrr"] for curve in training.curves)
            if best is None or score > best[0]:
                best = (score, rate, training.model)
        assert best is not None
        after = {"photos": _ranks(best[2], photos["test"]), "flickr8k": _ranks(best[2], dev)}
        report[name] = {
            "learning_rate": best[1], "validation_mrr": round(best[0], 4),
            "photos": _figures(after["photos"], photos["test"]) | _change(before["photos"], after["photos"], photos["test"]),
            "flickr8k": _figures(after["flickr8k"], dev) | _change(before["flickr8k"], after["flickr8k"], dev),
        }
    return report


def _general(texts: Texts) -> PairSet:
    """A caption each of some of Flickr8k's training pictures."""
    train = flickr.read_flickr(flickr.REALDATA / "B_image_text" / "flickr8k_train", side=flickr.SIDE)
    rows = np.random.default_rng(1).permutation(len(train.names))[:NUM_REPLAYED]
    some = _some(train, rows)
    return flickr.pairs_of(flickr.Pictures(some.names, some.pictures, [own[:1] for own in some.captions]), texts)


def _ranks(model: backbones.Backbone, pairs: PairSet) -> Ranks:
    return judge(embed_pairs(model, pairs), pairs.table).text_ranks


def _figures(ranks: Ranks, pairs: PairSet) -> dict[str, Any]:
    return flickr.intervals(ranks, pairs.table.clip_id.to_numpy()) | {"mrr": summarise(ranks)["mrr"]}


def _change(before: Ranks, after: Ranks, pairs: PairSet) -> dict[str, Any]:
    """After minus before, of R@1, R@10 and the mean reciprocal rank."""
    found = {}
    values = {f"r{k}": ((after <= k).astype(float), (before <= k).astype(float)) for k in (1, 10)}
    values["mrr"] = (1 / after, 1 / before)
    for name, (new, old) in values.items():
        by_picture = pd.Series(new - old).groupby(pairs.table.clip_id.to_numpy()).mean().to_numpy(np.float64)
        found[name] = interval(by_picture, range(len(by_picture)), resamples=2000, seed=0).to_json()
    return {"change": found}


def main() -> None:
    """Adapt the model in .vidseek/flickr, add what came of it to bench/flickr.json."""
    report = json.loads(flickr.OUT.read_text(encoding="utf-8")) if flickr.OUT.is_file() else {}
    report["adapted"] = adapt(flickr.WORK)
    flickr.OUT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report["adapted"], indent=2))  # noqa: T201 - this is the command's answer


if __name__ == "__main__":
    main()
