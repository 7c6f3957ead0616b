"""Merges the champion, exports both towers to ONNX in several precisions, and keeps the variants that agree with torch."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import Dim

from vidseek_encoder import external_data
from vidseek_encoder.bundle import EncoderSpec, encoder_version_of
from vidseek_encoder.encoder import INPUTS, OUTPUTS
from vidseek_encoder.preprocess import normalise
from vidseek_encoder.tokenize import Tokenizer
from vidseek_encoder.variants import RECIPES, convert
from vidseek_media.errors import ArtifactError, GateFailed
from vidseek_media.files.folders import whole_folder
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.tables import PAIRS, read_table
from vidseek_training import backbones
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import load_pairs, sample_clips
from vidseek_training.export.bundle_card import write_card
from vidseek_training.export.parity import CHOSEN_ON, JUDGED_ON, PROBES, Parity, Reference, failures
from vidseek_training.export.parity import measure as _measure
from vidseek_training.export.parity import reference_of as _reference_of
from vidseek_training.fitting import lora
from vidseek_training.settings import ParityLimits

_OPSET = 18
_LARGEST_BATCH = 1024
_NUM_EXAMPLES = 32
"""Training clips and captions by which int8 is made where its plainest form is not good enough."""
_Examples = dict[str, NDArray[Any]]

PARITY_FILE = "parity.json"


def export_champion(
    champion: Path,
    *,
    backbone: str,
    pairs: Path,
    frames: Path,
    out: Path,
    limits: Mapping[str, ParityLimits],
    max_clips: int,
) -> tuple[EncoderSpec, dict[str, Parity]]:
    """Write the encoder bundle of the champion, whole or not at all.

    A variant that misses its limits is left out, and its report has the reason. Without fp32 there is no bundle.

    Args:
        champion: Output of the stage `select`.
        backbone: Name, folder or hub id of the base.
        pairs: The pairs table, for captions of the parity check.
        frames: Output of the stage `frames`, for clips of the parity check.
        out: Folder for encoder.json, a folder for each variant, tokenizer.json, parity.json and the model card.
        limits: Limits of each variant to make; fp32 must be among them.
        max_clips: Most clips and captions of the parity check.

    Returns:
        The bundle's spec, and the report of every variant by name.

    Raises:
        ArtifactError: the adapter does not fit the base, or a table is missing.
        GateFailed: the fp32 vectors differ from torch's; nothing is written.
    """
    from vidseek_training.evaluation.champion import adapter_of, read_selected

    selected = read_selected(champion)
    model = lora.merged(backbones.load(backbone), adapter_of(champion))
    made_of = (
        f"with the adapter setting `{selected.setting}`, chosen on {selected.num_queries} validation captions with a mean "
        f"reciprocal rank of {selected.mrr}"
    )
    return _export(model, made_of, pairs=pairs, frames=frames, out=out, limits=limits, max_clips=max_clips)


def export_base(
    *, backbone: str, pairs: Path, frames: Path, out: Path, limits: Mapping[str, ParityLimits], max_clips: int
) -> tuple[EncoderSpec, dict[str, Parity], bool]:
    """Write the bundle of the base without an adapter, with the parity check of `export_champion`.

    An existing bundle is kept if it has the same weights, is complete, and its measurements pass today's limits.

    Args:
        backbone: Name, folder or hub id of the base.
        pairs: The pairs table, for captions of the parity check.
        frames: Output of the stage `frames`, for clips of the parity check.
        out: The bundle's folder.
        limits: Limits of each variant to make; fp32 must be among them.
        max_clips: Most clips and captions of the parity check.

    Returns:
        The bundle's spec, the report of every variant by name, and whether the bundle was written now.

    Raises:
        ArtifactError, ConfigError: the base cannot be loaded, or a table is missing.
        GateFailed: the fp32 vectors differ from torch's; nothing is written.
    """
    model = backbones.load(backbone)
    kept = _still_proven(out, _spec_of(model, model.spec.tokenizer).encoder_version, limits)
    if kept is not None:
        return *kept, False
    made_of = "as it is, without an adapter"
    return *_export(model, made_of, pairs=pairs, frames=frames, out=out, limits=limits, max_clips=max_clips), True


def _export(
    model: Backbone, made_of: str, *, pairs: Path, frames: Path, out: Path, limits: Mapping[str, ParityLimits],
    max_clips: int,
) -> tuple[EncoderSpec, dict[str, Parity]]:
    with whole_folder(out) as folder:
        shutil.copy(model.spec.tokenizer, folder / "tokenizer.json")
        _export_towers(model, folder / "fp32")
        spec = _spec_of(model, folder / "tokenizer.json").save(folder)
        references = lru_cache(2)(partial(_reference_of, model, pairs=pairs, frames=frames, max_clips=max_clips))
        parities = {"fp32": _measure(folder, "fp32", references(splits=JUDGED_ON), limits["fp32"])}
        if failed := parities["fp32"].failed:
            raise GateFailed(
                f"the fp32 export is not the model that was trained: {'; '.join(failed)}", code="export-differs",
                remedy="No bundle was written; check torch, onnxscript and onnxruntime with `vidseek doctor`",
            )
        examples = lru_cache(1)(lambda: _examples_of(model, spec, pairs=pairs, frames=frames))
        for variant in sorted(limits.keys() - {"fp32"}):
            parities[variant] = _make(folder, spec, variant, references, limits[variant], examples)
            if not parities[variant].failed:
                spec = replace(spec, variants=(*spec.variants, variant))
        spec = spec.save(folder)
        content = {variant: asdict(parity) for variant, parity in sorted(parities.items())}
        write_json(folder / PARITY_FILE, content)
        write_card(folder, spec, content, made_of=made_of)
    return spec, parities


def _still_proven(
    bundle: Path, encoder_version: str, limits: Mapping[str, ParityLimits]
) -> tuple[EncoderSpec, dict[str, Parity]] | None:
    """Return the bundle that is there, where the gate would do with it today what it did; what an earlier version measured
    proves nothing."""
    try:
        spec = EncoderSpec.load(bundle)
        for variant in spec.variants:
            spec.check_files(bundle, variant)
        content = read_json(bundle / PARITY_FILE)
        parities = {name: Parity.from_json(each) for name, each in content.items()}
    except (ArtifactError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    says_the_same = limits.keys() <= parities.keys() and all(
        failures(parities[name], each) == parities[name].failed for name, each in limits.items()
    )
    return (spec, parities) if spec.encoder_version == encoder_version and says_the_same else None


def _make(
    folder: Path, spec: EncoderSpec, variant: str, references: Callable[..., Reference], limits: ParityLimits,
    examples: Callable[[], _Examples],
) -> Parity:
    """Make `variant` in `folder` by the first of its recipes that reaches its limits on the captions that choose, and keep
    it where it reaches them on those that judge. Otherwise it is not there: no other recipe is tried on these. A variant
    that cannot be made or run is left out as one that is not near enough: the others are good without it."""
    tried: list[str] = []
    parity, recipes = None, RECIPES[variant]
    # With a single recipe there is nothing to choose.
    choosing = references(splits=CHOSEN_ON) if len(recipes) > 1 else None
    judging = references(splits=JUDGED_ON)
    for recipe in recipes:
        inputs = examples() if recipe != recipes[0] else None
        try:
            _convert_towers(folder, spec, variant, recipe, inputs)
            replace(spec, variants=(*spec.variants, variant)).save(folder)
            if choosing is not None:
                parity = replace(_measure(folder, variant, choosing, limits), recipe=recipe, tried=tuple(tried))
            if parity is None or not parity.failed:
                parity = replace(_measure(folder, variant, judging, limits), recipe=recipe, tried=tuple(tried))
                break
        except ArtifactError as error:
            parity = replace(Parity.not_made(judging, error.message), recipe=recipe, tried=tuple(tried))
            if error.code == "variant-not-made":  # what the converters do not take they take by no recipe
                break
        tried.append(f"{recipe}: {'; '.join(parity.failed)}")
        shutil.rmtree(folder / variant)
    assert parity is not None  # there is a recipe
    if parity.failed:
        shutil.rmtree(folder / variant, ignore_errors=True)
    return parity


def write_unproven(model: Backbone, folder: Path, *, variants: Sequence[str] = ()) -> EncoderSpec:
    """Write a bundle without a parity check, to measure its speed.

    Args:
        model: The backbone.
        folder: An existing, empty folder.
        variants: Variants to make in addition to fp32.
    """
    shutil.copy(model.spec.tokenizer, folder / "tokenizer.json")
    _export_towers(model, folder / "fp32")
    spec = _spec_of(model, folder / "tokenizer.json")
    for variant in variants:
        _convert_towers(folder, spec, variant)
    return replace(spec, variants=("fp32", *variants)).save(folder)


def _export_towers(model: Backbone, folder: Path) -> None:
    folder.mkdir()
    # Names of outputs must not be names of operators: ONNX Runtime then finds a value defined twice.
    batch = Dim("batch", min=1, max=_LARGEST_BATCH)
    for tower in model.export_towers():
        shape = {0: batch} if tower.longest is None else {0: batch, 1: Dim("tokens", min=2, max=tower.longest)}
        with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                tower.module.eval(), (tower.example,), input_names=[INPUTS[tower.name]], output_names=[OUTPUTS[tower.name]],
                dynamic_shapes=(shape,), opset_version=_OPSET, dynamo=True, optimize=True, verbose=False,
            )
        assert program is not None
        # Where in our code each node came from: paths of this machine, in files that others get, and a tenth of a small one.
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
        weights = sum(each.const_value.nbytes for each in program.model.graph.initializers.values() if each.const_value)
        # Beside the model they get the name that `onnx_file.data_file` expects.
        program.save(folder / f"{tower.name}.onnx", external_data=weights > external_data.MOST_INLINE_BYTES)


def _convert_towers(
    folder: Path, spec: EncoderSpec, variant: str, recipe: str = "all", examples: _Examples | None = None
) -> None:
    (folder / variant).mkdir()
    # The quantizer recommends a step that fails on these graphs; the fusions tell what they leave.
    with _quiet("root", "onnxscript"):
        for tower in spec.towers:
            convert(
                folder / "fp32" / f"{tower}.onnx", folder / variant / f"{tower}.onnx", variant=variant, recipe=recipe,
                examples=examples[tower] if examples else None,
            )


def _examples_of(model: Backbone, spec: EncoderSpec, *, pairs: Path, frames: Path) -> _Examples:
    """Inputs of each tower to judge and calibrate by: of training pairs, so that the gate sees others."""
    table = read_table(pairs, PAIRS)
    if (table.split == "train").any():
        learned = load_pairs(pairs, frames, model.spec, split="train", most=_NUM_EXAMPLES)
        clips, captions = np.asarray(learned.frames), learned.captions
    else:
        clips, captions = sample_clips(frames, model.spec, count=_NUM_EXAMPLES), list(PROBES)
    pixels = normalise(clips, image_mean=spec.image_mean, image_std=spec.image_std)
    tokenizer = Tokenizer.load(model.spec.tokenizer, context=spec.context_length, pad_id=spec.pad_id)
    return {
        "text": tokenizer.encode(captions, trim=spec.trims_texts),
        spec.vision: pixels if spec.vision == "video" else pixels.reshape(-1, *pixels.shape[2:]),
    }


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Only errors of these loggers for the length of a block."""
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _spec_of(model: Backbone, tokenizer: Path) -> EncoderSpec:
    spec = model.spec
    # The scale on cosines does not move a vector, so it is no part of the space.
    tensors = {
        name: tensor.float().numpy() for name, tensor in model.state_dict().items() if not name.endswith("logit_scale")
    }
    space = {
        "family": spec.family, "context_length": spec.context_length, "num_frames": spec.num_frames,
        "image_size_px": spec.image_size_px, "resize": spec.resize, "resample": spec.resample,
        "resize_side": spec.resize_side, "image_mean": spec.image_mean, "image_std": spec.image_std,
        "dimension": spec.dimension,
    }
    version = encoder_version_of(tensors=tensors, tokenizer=tokenizer, **space)  # type: ignore[arg-type]
    return EncoderSpec(
        encoder_version=version, pad_id=spec.pad_id, backbone=spec.name, variants=("fp32",),
        vision="frame" if model.averages_frames else "video", trims_texts=not model.reads_padding, **space,  # type: ignore[arg-type]
    )
