"""Trains LoRA adapters on both towers of a backbone with a contrastive loss, validated on the validation gallery."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from vidseek_encoder.bundle import file_sha256
from vidseek_media.errors import ArtifactError, DeviceError
from vidseek_media.files.csv_files import write_csv
from vidseek_media.files.folders import whole_folder
from vidseek_media.files.json_files import write_json
from vidseek_media.tables import PAIRS, read_table
from vidseek_training import backbones, tracking
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_changes import OUTCOME, TRAINED_ON, changes_since, lasting_changes, why_trained
from vidseek_training.dataset.pair_set import PairSet, load_pairs
from vidseek_training.dataset.sampling import Data
from vidseek_training.evaluation.scales import choose
from vidseek_training.fitting import lora, pictures
from vidseek_training.fitting.checkpoints import Checkpoint, fingerprint
from vidseek_training.fitting.distributed import DistributedContext
from vidseek_training.fitting.presets import REAL_PARAMETERS, Choice, Model, resolve
from vidseek_training.fitting.trainer import Say, Trainer
from vidseek_training.settings import DEFAULT_PRESET, Preset, TrainSettings


@dataclass(frozen=True)
class Outcome:
    """The result of one adapter setting; outcome.json."""

    setting: str
    trained: bool
    reason: str
    """Why nothing was trained, or empty."""
    backbone: str
    num_pairs: int
    num_steps: int
    seconds: float
    run_id: str
    """Of MLflow, or empty."""
    preset: str = "none"
    """Where the values of keys that params.yaml does not give came from, and why; see `presets`."""
    preset_reason: str = ""
    update_ratio: float = 0.0
    """The largest update over its weight, in spectral norm, that was measured while training, and its layer."""
    update_layer: str = ""
    updates_held: str = ""
    """At the validation with most of them, how many layers' updates are held at `max_update_ratio`; empty if none is."""
    warnings: list[str] = field(default_factory=list)
    forecast: dict[str, Any] = field(default_factory=dict)
    """What the training was expected to take; see `forecast.Forecast`."""
    changes: dict[str, int] = field(default_factory=dict)
    """Pairs that are new, changed or gone since the last adapter of other pairs (`PairChanges`); empty where none was."""


def train_adapter(
    name: str, settings: TrainSettings, *, backbone: str, pairs: Path, frames: Path, general: Path | None, out: Path,
    report: Path, state: Path | None = None, preset: Preset = DEFAULT_PRESET, say: Say | None = None,
) -> Outcome:
    """Train one setting and write its adapter, its validation ranks and its curves.

    Only the choosing half of validation is used; the other half is for the proof in `select`. If a run of the same settings,
    pairs, frames and backbone was stopped, it continues from its last checkpoint with the same result.

    Args:
        name: Of the setting in params.yaml.
        settings: Of the training.
        backbone: A name or folder, as for `backbones.load`.
        pairs: The pairs table.
        frames: The folder of the frames stage.
        general: The folder of the replay data (pairs/ and frames/); None for no replay.
        out: Gets adapter/, outcome.json, validation.json and a copy of the pairs table; whole or absent.
        report: Gets metrics.json, curves.csv and pictures/.
        state: Gets checkpoints/, tensorboard/, and lower/ for cached hidden states; None for none of them.
        preset: Fills in keys that `settings` leave open, unless `settings` name a preset.
        say: Gets lines for the user: which pairs are new since the adapter in `out`, the preset, the forecast, warnings.

    Raises:
        ConfigError: the settings contradict each other, or would overwrite the backbone's general knowledge.
        ArtifactError: a table, a shard, the backbone's files or a checkpoint are missing or broken; or the disk is full.
        GateFailed: the loss is not finite.
        DeviceError: the precision or the device is not available.
        ServiceError: the tracking store does not answer.
    """
    torch.manual_seed(settings.seed)
    cuda = _wants_cuda(settings)
    processes = DistributedContext.here(cuda=cuda)
    model = backbones.load(backbone).to(processes.device(cuda=cuda))
    choice = _choose(settings, model, pairs, preset)
    settings = choice.settings
    tell: Say = say if say is not None and processes.is_first else lambda _: None
    changes = changes_since(out, pairs)
    lasting = lasting_changes(out, changes)
    tell(why_trained(changes))
    tell(choice.reason)
    data = _load(model, settings, pairs, frames, general)
    (report / "pictures").mkdir(parents=True, exist_ok=True)
    if len(data.train) < settings.min_pairs:
        outcome = _too_few_pairs(name, backbone, settings, choice, len(data.train))
        if processes.is_first:
            _write_untrained(outcome, pairs, out, report)
        return outcome
    lineage = _lineage(backbone, pairs, frames, general)
    lower = None if state is None else state / "lower"
    checkpoint = None if state is None else _checkpoint(state, name, settings, data, processes, lineage)
    saved = None if checkpoint is None else checkpoint.load()
    if not processes.is_first:
        Trainer(model, settings, data, processes=processes, lower=lower).run(saved)
        processes.wait()
        return Outcome(name, True, "", backbone, len(data.train), 0, 0.0, "")
    params = {**settings.model_dump(mode="json"), "backbone": backbone, "num_pairs": len(data.train)}
    tags = {"setting": name, **lineage, "git_commit": tracking.git_commit(), "processes": str(processes.count)}
    board = None if state is None else state / "tensorboard"
    with tracking.run(f"train-{name}", params, tags, board=board, again=saved.get("run_id", "") if saved else "") as run:
        fitting = Trainer(
            model, settings, data, log=run.log, checkpoint=checkpoint, about={"run_id": run.id}, processes=processes,
            lower=lower, say=tell,
        )
        forecast = fitting.forecast()
        tell(str(forecast))
        for kind, text in _early_warnings(settings, data, model, general):
            fitting.warn(kind, text)
        run.tag({"precision": "bf16" if fitting.in_bf16 else "fp32", "preset": choice.reason})
        fitting.run(saved)
        model.to("cpu")
        ratio, layer = fitting.strongest
        if held := fitting.held_updates():
            tell(held)
        outcome = Outcome(
            name, True, "", backbone, len(data.train), fitting.steps_done, round(fitting.seconds, 1), run.id,
            preset=choice.preset, preset_reason=choice.reason, update_ratio=round(ratio, 4), update_layer=layer,
            updates_held=held, warnings=fitting.warnings, forecast=forecast.to_json(),
            changes=lasting,
        )
        run.tag({
            "warnings": "; ".join(fitting.warnings), "update_ratio": f"{ratio:.4f} in {layer}", "updates_held": held,
        })
        _write_trained(outcome, fitting, pairs, out, report)
        run.log_folder(out / "adapter", under="adapter")
        run.log_folder(report, under="report")
    if checkpoint is not None:
        checkpoint.remove()
    processes.wait()
    return outcome


def _wants_cuda(settings: TrainSettings) -> bool:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "device is cuda, and torch finds none", code="no-cuda", remedy="Set train.settings.<name>.device to cpu",
        )
    return settings.device == "cuda"


def _choose(settings: TrainSettings, model: Backbone, pairs: Path, preset: Preset) -> Choice:
    """Return the settings with every key filled in, for `model` and the training pairs there are."""
    num_pairs = int((read_table(pairs, PAIRS).split == "train").sum())
    sizes = Model(model.spec.name, model.num_parameters(), model.num_embedding_parameters())
    return resolve(settings, sizes, num_pairs, default=preset)


def _early_warnings(
    settings: TrainSettings, data: Data, model: Backbone, general: Path | None
) -> list[tuple[str, str]]:
    """Return warnings that are known before the first step."""
    found = []
    if model.num_parameters() > REAL_PARAMETERS and general is None:
        found.append((
            "forgetting",
            "general.source names no general pairs: what the model forgets is neither held nor measured; name a folder of "
            "pictures with captions.csv (docs/training.md)",
        ))
    elif settings.replay and data.general is None and general is not None:
        found.append(("replay", f"the general world has fewer than {settings.replay} training pairs: nothing is replayed"))
    if not len(data.validation):
        found.append(("validation", "there is no validation pair: no step is judged, and nothing can be proven"))
    count = len(data.train)
    seen = settings.num_steps(count) * settings.pairs_a_step(count) / count
    if seen < 1:
        found.append(("epochs", f"the steps see {seen:.2f} of the training pairs: set epochs in the place of steps"))
    if settings.mask_same_video and data.train.table.video_id.nunique() == 1:
        found.append((
            "negatives",
            "all training pairs are of one video, and clips of one video are no negatives of each other "
            "(mask_same_video): nothing is taught; caption clips of other videos too",
        ))
    if settings.validate_every(count) > settings.num_steps(count):
        found.append(("validation", "validation comes only after the last step: set validations_per_epoch"))
    return found


def _lineage(backbone: str, pairs: Path, frames: Path, general: Path | None) -> dict[str, str]:
    """Return the inputs of a training: hashes of data and base, and the base's revision.

    The pairs table names the frames of its clips. frames.parquet counts only for a table that does not, of an earlier
    version: it changes with every clip of the archive.
    """
    tables = {"pairs": pairs}
    if pairs.is_file() and (read_table(pairs, PAIRS, columns=["frames_digest"]).frames_digest.fillna("") == "").any():
        tables["frames"] = frames / "frames.parquet"
    if general is not None:
        tables |= {"general_pairs": general / "pairs" / "pairs.parquet"}
    return {
        **{f"{name}_sha256": file_sha256(path) for name, path in tables.items() if path.is_file()},
        "backbone": backbone, "backbone_revision": backbones.revision_of(backbone),
        "backbone_sha256": backbones.weights_sha256(backbone),
    }


def _load(model: Backbone, settings: TrainSettings, pairs: Path, frames: Path, general: Path | None) -> Data:
    spec = model.spec
    train = load_pairs(pairs, frames, spec, split="train", all_frames=settings.random_frames)
    num_pairs = max(1, len(train))
    replayed = kept = None
    if general is not None and settings.scales != (1.0,):
        kept = load_pairs(general / "pairs" / "pairs.parquet", general / "frames", spec, split="validation")
    if general is not None and settings.replay:
        # No more than the steps draw: each is embedded by the base first.
        most = settings.replay * (settings.num_steps(num_pairs) + settings.warmup_text_steps)
        replayed = load_pairs(general / "pairs" / "pairs.parquet", general / "frames", spec, split="train", most=most)
    return Data(
        train,
        load_pairs(pairs, frames, spec, split="validation", half="choosing"),
        replayed if replayed is not None and len(replayed) >= settings.replay else None, kept,
    )


def gallery_hash(pairs: PairSet) -> str:
    """Return a hash of a gallery's clips and captions; ranks on different galleries cannot be compared."""
    rows = [[row.clip_id, row.caption, row.gallery] for row in pairs.table.itertuples()]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _write_untrained(outcome: Outcome, pairs: Path, out: Path, report: Path) -> None:
    with whole_folder(out) as folder:
        shutil.copyfile(pairs, folder / TRAINED_ON)
        write_json(folder / OUTCOME, asdict(outcome))
    write_json(report / "metrics.json", {"trained": False}, indent=None)
    write_csv(report / "curves.csv", ["step", "loss", "validation_r1"], [])
    write_csv(report / "scales.csv", ["scale", "mrr", "general_mrr"], [])


def _too_few_pairs(name: str, backbone: str, settings: TrainSettings, choice: Choice, num_pairs: int) -> Outcome:
    reason = f"{num_pairs} training pairs; the setting wants at least {settings.min_pairs}"
    return Outcome(
        name, False, reason, backbone, num_pairs, 0, 0.0, "", preset=choice.preset, preset_reason=choice.reason
    )


def _checkpoint(
    state: Path, name: str, settings: TrainSettings, data: Data, processes: DistributedContext, lineage: dict[str, str]
) -> Checkpoint:
    """Return the checkpoint that belongs to these settings, these data and this number of processes."""
    mark = fingerprint(
        settings=settings.model_dump(mode="json"), processes=processes.count, validation=gallery_hash(data.validation),
        **lineage,
    )
    return Checkpoint(state / "checkpoints", name, mark)


def _write_trained(outcome: Outcome, training: Trainer, table: Path, out: Path, report: Path) -> None:
    """Write adapter and report.

    Raises:
        ArtifactError: the disk is full or not writable.
    """
    try:
        _write_adapter(outcome, training, table, out)
        _write_report(outcome, training, out, report)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"the adapter cannot be written to {out}, or its curves to {report}: {error}", code="not-writable",
            remedy="Make room or mend the rights, then run it again: it goes on from the last validation",
        ) from error


def _write_adapter(outcome: Outcome, training: Trainer, table: Path, out: Path) -> None:
    pairs = training.data.validation
    ranks = {
        "gallery": gallery_hash(pairs), "base": training.base.text_ranks.tolist(),
        "adapted": training.adapted.text_ranks.tolist(),
    }
    with whole_folder(out) as folder:
        shutil.copyfile(table, folder / TRAINED_ON)
        lora.save(training.handle, training.model, folder / "adapter")
        write_json(folder / "validation.json", ranks, indent=None)
        write_json(folder / OUTCOME, asdict(outcome))


def _write_report(outcome: Outcome, training: Trainer, out: Path, report: Path) -> None:
    pairs = training.data.validation
    figures: dict[str, Any] = {
        "trained": True, "validation": {
            "base": training.base.figures(pairs.table), "adapted": training.adapted.figures(pairs.table),
        },
    }
    figures |= {
        "adapter_sha256": file_sha256(out / "adapter" / "adapter_model.safetensors"),
        "update_ratio": outcome.update_ratio, "update_layer": outcome.update_layer, "preset": outcome.preset,
        "updates_held": outcome.updates_held, "warnings": outcome.warnings, "changes": outcome.changes,
    }
    if training.sweep:
        figures["scale"] = choose(training.sweep).scale
        figures["sweep"] = [each.to_json() for each in training.sweep]
    write_json(report / "metrics.json", figures)
    tables: dict[str, list[dict[str, Any]]] = {"curves.csv": training.curves, "scales.csv": _scales(training)}
    for name, rows in tables.items():
        write_csv(report / name, list(rows[0]), (list(row.values()) for row in rows))
    pictures.draw_curves(training.curves, report / "pictures" / "curves.png")
    if len(pairs):
        vectors = training.adapted_vectors
        pictures.draw_similarity(vectors.texts, vectors.videos, report / "pictures" / "similarity.png")
        pictures.draw_retrieval(pairs, vectors.texts, vectors.videos, report / "pictures" / "retrieval.png")
        pictures.draw_map({"before": training.base_validation, "after": vectors}, report / "pictures" / "map.png")


def _scales(training: Trainer) -> list[dict[str, float | None]]:
    """Mean reciprocal ranks on validation by the adapter's scale: of a sweep, or of the one scale that was judged."""
    if training.sweep:
        return [{"scale": each.scale, "mrr": each.mrr, "general_mrr": each.general_mrr} for each in training.sweep]
    ranks = training.adapted.text_ranks
    return [{"scale": 1.0, "mrr": float((1 / ranks).mean()) if len(ranks) else None, "general_mrr": None}]

