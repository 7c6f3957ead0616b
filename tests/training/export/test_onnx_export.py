from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.raising import raises
from tests.training.champions import write_champion
from tests.training.tiny import (
    DIMENSION,
    FRAMES_OF_CLIP,
    SIDE,
    Archive,
    all_colours,
    ids_of,
    write_archive,
    write_clip,
    write_viclip,
)
from vidseek_encoder import external_data
from vidseek_encoder.bundle import EncoderSpec
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, GateFailed
from vidseek_training import backbones
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import load_pairs
from vidseek_training.evaluation.champion import adapter_of
from vidseek_training.evaluation.embedding import embed_frames, embed_ids, embed_pairs
from vidseek_training.export import onnx_export as export
from vidseek_training.export.onnx_export import Parity, ParityLimits, export_base, export_champion
from vidseek_training.fitting import lora
from vidseek_training.settings import ParitySettings

NO_LIMITS = ParityLimits(min_cosine=-1, min_overlap=0, min_r1_difference=-1)


def exporting(
    champion: Path, backbone: Path, archive: Archive, out: Path, **limits: ParityLimits
) -> tuple[EncoderSpec, dict[str, Parity]]:
    return export_champion(
        champion, backbone=str(backbone), pairs=archive.pairs, frames=archive.frames, out=out,
        limits={"fp32": ParitySettings().fp32, **limits}, max_clips=16,
    )


@pytest.fixture
def towers_of(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The towers that were exported already instead of new ones: exporting takes seconds."""

    def copied(model: Backbone, folder: Path) -> None:
        shutil.copytree(exported / "encoder" / "fp32", folder)

    monkeypatch.setattr(export, "_export_towers", copied)


def test_export_champion__leaves_a_bundle_that_says_what_it_is(exported: Path, backbone: Path) -> None:
    bundle = exported / "encoder"
    spec = EncoderSpec.load(bundle)
    spec.check_files(bundle, "fp32")
    assert (spec.family, spec.backbone, spec.variants) == ("viclip", str(backbone), ("fp32",))
    assert (spec.dimension, spec.num_frames, spec.image_size_px) == (DIMENSION, FRAMES_OF_CLIP, SIDE)
    assert {path.name for path in bundle.iterdir()} == {
        "encoder.json", "fp32", "tokenizer.json", "parity.json", "README.md"
    }
    assert (bundle / "tokenizer.json").read_bytes() == (backbone / "tokenizer.json").read_bytes()
    card = (bundle / "README.md").read_text()
    assert spec.encoder_version in card and "shaken-7" in card
    assert not list(exported.glob(".encoder*"))


def test_export_champion__the_graphs_say_nothing_of_the_machine_that_made_them(exported: Path) -> None:
    graphs = list(exported.rglob("*.onnx"))
    assert graphs
    for graph in graphs:
        content = graph.read_bytes()
        assert b"stack_trace" not in content and str(Path(export.__file__).parent).encode() not in content


def test_export_champion__parity_was_measured_on_held_out_pairs(exported: Path) -> None:
    parity = json.loads((exported / "encoder" / "parity.json").read_text())
    assert set(parity) == {"fp32"}
    parity = parity["fp32"]
    assert (parity["num_clips"], parity["num_texts"], parity["failed"]) == (16, 16, [])
    assert parity["min_cosine_video"] > 0.99999 and parity["min_cosine_text"] > 0.99999
    assert parity["top_10_overlap"] == 1.0 and parity["r1"] == parity["r1_torch"] and parity["num_lost"] == 0
    assert parity["split"] == "test" and parity["r1_difference_low"] == pytest.approx(-(1 - 0.025 ** (1 / 16)), abs=1e-4)
    assert "R@1: not enough test clips to judge: 16, wanted 183" in parity["not_judged"]
    assert "16, wanted 183" in (exported / "encoder" / "README.md").read_text()


@pytest.mark.parametrize("count", [1, 3, 17])
def test_export_champion__any_batch_gives_the_vectors_of_torch(
    exported: Path, archive: Archive, backbone: Path, count: int
) -> None:
    model = lora.merged(backbones.load(backbone), adapter_of(exported / "champion"))
    pairs = load_pairs(archive.pairs, archive.frames, model.spec, split="train")
    wanted = embed_pairs(model, replace(
        pairs, table=pairs.table[:count], frames=pairs.frames[:count], ids=pairs.ids[:count]
    ))
    encoder = Encoder.load(exported / "encoder", threads=1, batch=32)
    videos, texts = encoder.embed_frames(np.asarray(pairs.frames[:count])), encoder.embed_texts(pairs.captions[:count])
    assert videos.shape == texts.shape == (count, DIMENSION)
    assert np.abs(videos - wanted.videos).max() < 1e-4 and np.abs(texts - wanted.texts).max() < 1e-4


TEXTS = ["red", "a bright red video", "a video", "a dark cyan video a dark cyan video a dark cyan video", "white video"]
"""The fourth is longer than the context."""


def test_export_champion__short_texts_go_without_their_padding_and_mean_the_same(
    exported: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lora.merged(backbones.load(backbone), adapter_of(exported / "champion"))
    wanted = embed_ids(model, ids_of(model, TEXTS).numpy())
    encoder = Encoder.load(exported / "encoder", threads=1, batch=2)
    assert encoder.spec.trims_texts
    shapes: list[tuple[int, ...]] = []
    run = Encoder._run_batch
    monkeypatch.setattr(Encoder, "_run_batch", lambda *args, **named: shapes.append(args[2].shape) or run(*args, **named))
    np.testing.assert_allclose(encoder.embed_texts(TEXTS), wanted, atol=1e-5)
    assert shapes == [(2, 4), (2, 6), (1, 8)]  # short ones together, and a start and an end for each


@pytest.mark.usefixtures("towers_of")
def test_export_champion__again_is_the_same_space(
    exported: Path, archive: Archive, backbone: Path, tmp_path: Path
) -> None:
    first = EncoderSpec.load(exported / "encoder")
    assert exporting(exported / "champion", backbone, archive, tmp_path / "again")[0] == first
    with raises(GateFailed, code="export-differs"):  # the towers are of another adapter
        exporting(write_champion(tmp_path / "other", backbone, seed=8), backbone, archive, tmp_path / "encoder")


def test_encoder_version__is_of_the_merged_weights_and_the_space(
    exported: Path, backbone: Path, tmp_path: Path
) -> None:
    def version(model: Backbone) -> str:
        return export._spec_of(model, backbone / "tokenizer.json").encoder_version

    base, adapter = backbones.load(backbone), adapter_of(exported / "champion")
    adapted = lora.merged(base, adapter)
    assert version(adapted) == EncoderSpec.load(exported / "encoder").encoder_version
    assert version(base) == version(lora.merged(base, None)) != version(adapted)
    # The factor on cosines moves no vector; the mean of the pixels does.
    base.logit_scale.data.fill_(1.0)
    assert version(base) == version(backbones.load(backbone))
    base.spec = replace(base.spec, image_mean=(0.0, 0.0, 0.0))
    assert version(base) != version(backbones.load(backbone))


@pytest.mark.usefixtures("towers_of")
@pytest.mark.parametrize("tower", ["video", "text"])
def test_export_champion__a_broken_tower_fails_the_gate_and_leaves_nothing(
    exported: Path, archive: Archive, backbone: Path, tmp_path: Path, tower: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export._export_towers

    def broken(model: Backbone, folder: Path) -> None:
        whole(model, folder)
        graph = onnx.load(folder / f"{tower}.onnx")
        largest = max(graph.graph.initializer, key=lambda each: np.prod(each.dims))
        values = numpy_helper.to_array(largest)
        noise = np.random.default_rng(0).normal(0, values.std(), values.shape).astype(values.dtype)
        largest.CopyFrom(numpy_helper.from_array(values + noise, largest.name))
        onnx.save(graph, folder / f"{tower}.onnx")

    monkeypatch.setattr(export, "_export_towers", broken)
    with raises(GateFailed, code="export-differs", naming=f"min_cosine_{tower}"):
        exporting(exported / "champion", backbone, archive, tmp_path / "encoder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("towers_of")
def test_export_champion__a_failed_gate_leaves_the_bundle_that_was_there(
    exported: Path, archive: Archive, backbone: Path, tmp_path: Path
) -> None:
    exporting(exported / "champion", backbone, archive, tmp_path / "encoder")
    before = (tmp_path / "encoder" / "encoder.json").read_bytes()
    with raises(GateFailed, code="export-differs", naming="top_10_overlap"):
        wanted = ParitySettings().fp32.model_copy(update={"min_overlap": 1.01})
        exporting(exported / "champion", backbone, archive, tmp_path / "encoder", fp32=wanted)
    assert (tmp_path / "encoder" / "encoder.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


@pytest.mark.usefixtures("towers_of")
def test_export_champion__variants_share_the_space_and_are_kept_when_they_pass(
    exported: Path, archive: Archive, backbone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "encoder"
    spec, parities = exporting(exported / "champion", backbone, archive, out, fp16=NO_LIMITS, int8=NO_LIMITS)
    assert spec.variants == ("fp32", "fp16", "int8") and spec == EncoderSpec.load(out)
    assert spec.encoder_version == EncoderSpec.load(exported / "encoder").encoder_version
    clips = np.random.default_rng(0).integers(0, 256, (5, FRAMES_OF_CLIP, SIDE, SIDE, 3), np.uint8)
    exact = Encoder.load(out, threads=1).embed_frames(clips)
    for variant in ("fp16", "int8"):
        near = Encoder.load(out, threads=1, variant=variant).embed_frames(clips)
        assert (exact * near).sum(1).min() > 0.9 and not np.array_equal(exact, near)
        assert parities[variant].size_mb < parities["fp32"].size_mb
    assert set(json.loads((out / "parity.json").read_text())) == set(spec.variants)


@pytest.mark.slow
@pytest.mark.usefixtures("towers_of")
def test_export_champion__a_variant_that_fails_is_left_out_with_its_reason(
    exported: Path, archive: Archive, backbone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "encoder"
    impossible = ParitySettings().fp32.model_copy(update={"min_cosine": 1.01})
    spec, parities = exporting(exported / "champion", backbone, archive, out, fp16=NO_LIMITS, int8=impossible)
    assert spec.variants == ("fp32", "fp16") and not (out / "int8").exists()
    assert "min_cosine_video" in parities["int8"].failed[0]
    assert json.loads((out / "parity.json").read_text())["int8"]["failed"]
    assert "no: min_cosine_video" in (out / "README.md").read_text()
    with raises(ArtifactError, code="no-such-variant", naming="'int8'"):
        Encoder.load(out, variant="int8")


@pytest.mark.slow
@pytest.mark.usefixtures("towers_of")
def test_export_champion__int8_is_made_by_the_first_recipe_that_passes(
    exported: Path, backbone: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, asked, measure = [], [], export._measure

    def strict(folder: Path, variant: str, *rest: object) -> Parity:
        measured.append((folder / variant / "text.onnx").read_bytes())
        parity: Parity = measure(folder, variant, *rest)  # type: ignore[arg-type]
        asked.append(parity.split)
        return replace(parity, failed=("too far",)) if variant == "int8" and len(measured) < 4 else parity

    monkeypatch.setattr(export, "_measure", strict)
    out = tmp_path / "encoder"
    spec, parities = exporting(exported / "champion", backbone, archive, out, int8=NO_LIMITS)
    assert spec.variants == ("fp32", "int8")
    assert (parities["int8"].recipe, parities["int8"].tried) == ("static", ("all: too far", "sparing: too far"))
    # All recipes are chosen by others than those that judge the last one, once.
    assert asked == ["test", *["validation"] * 3, "test"]
    assert len(set(measured)) == 4 and (out / "int8" / "text.onnx").read_bytes() == measured[-1]
    assert json.loads((out / "parity.json").read_text())["int8"]["recipe"] == "static"
    Encoder.load(out, variant="int8").embed_texts(["red"])



def test_measure__looks_at_batches_and_at_lone_rows(
    exported: Path, archive: Archive, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lora.merged(backbones.load(backbone), adapter_of(exported / "champion"))
    reference = export._reference_of(model, pairs=archive.pairs, frames=archive.frames, max_clips=16)
    embed = Encoder.embed_texts

    def wrong_when_alone(self: Encoder, texts: list[str]) -> np.ndarray:
        rows = embed(self, texts)
        return -rows if self.batch == 1 else rows

    assert export._measure(exported / "encoder", "fp32", reference, ParitySettings().fp32).failed == ()
    monkeypatch.setattr(Encoder, "embed_texts", wrong_when_alone)
    parity = export._measure(exported / "encoder", "fp32", reference, ParitySettings().fp32)
    assert parity.min_cosine_text < -0.99 and "min_cosine_text" in parity.failed[0]


@pytest.mark.slow
def test_export_champion__a_large_tower_has_its_weights_beside_it_in_every_variant(
    exported: Path, archive: Archive, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All towers are large where none of their bytes may lie in the model."""
    monkeypatch.setattr(external_data, "MOST_INLINE_BYTES", 0)
    out = tmp_path / "encoder"
    spec, _ = exporting(exported / "champion", backbone, archive, out, fp16=NO_LIMITS, int8=NO_LIMITS)
    inside = EncoderSpec.load(exported / "encoder")
    assert spec.variants == ("fp32", "fp16", "int8") and spec.encoder_version == inside.encoder_version
    for variant in spec.variants:
        names = {"text.onnx", "text.onnx.data", "video.onnx", "video.onnx.data"}
        assert {path.name for path in (out / variant).iterdir()} == names
        assert {f"{variant}/{name}" for name in names} <= set(spec.files)
        assert (out / variant / "text.onnx").stat().st_size < (out / variant / "text.onnx.data").stat().st_size
    shutil.move(out, tmp_path / "elsewhere")
    whole, beside = Encoder.load(exported / "encoder", threads=1), Encoder.load(tmp_path / "elsewhere", threads=1)
    np.testing.assert_array_equal(beside.embed_texts(TEXTS), whole.embed_texts(TEXTS))
    for variant, least in (("fp16", 0.999), ("int8", 0.98)):
        near = Encoder.load(tmp_path / "elsewhere", threads=1, variant=variant)
        assert (near.embed_texts(TEXTS) * whole.embed_texts(TEXTS)).sum(1).min() > least


@pytest.mark.usefixtures("towers_of")
@pytest.mark.parametrize("broken", ["made", "run"])
def test_export_champion__a_variant_that_cannot_be_made_or_run_is_left_out_and_said(
    exported: Path, archive: Archive, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    convert, tried = export.convert, []

    def fails(source: Path, out: Path, *, variant: str, recipe: str, **rest: object) -> None:
        tried.append(recipe)
        if variant == "fp16":
            convert(source, out, variant=variant, recipe=recipe, **rest)  # type: ignore[arg-type]
        elif broken == "made":
            raise ArtifactError("protobuf holds no more than 2 GiB", code="variant-not-made")
        else:
            out.write_bytes(b"what no runtime opens")

    monkeypatch.setattr(export, "convert", fails)
    out = tmp_path / "encoder"
    spec, parities = exporting(exported / "champion", backbone, archive, out, fp16=NO_LIMITS, int8=NO_LIMITS)
    assert spec.variants == ("fp32", "fp16") and not (out / "int8").exists()
    assert "protobuf" in parities["int8"].failed[0] if broken == "made" else "cannot be opened" in parities["int8"].failed[0]
    assert (parities["int8"].min_cosine, parities["int8"].size_mb) == (None, None)
    # What cannot be made once is not made otherwise; what does not run may run by another recipe.
    assert {name for name in tried if name != "all"} == (set() if broken == "made" else {"sparing", "static"})
    assert parities["int8"].failed[0] in (out / "README.md").read_text()
    content = json.loads((out / "parity.json").read_text())
    assert Parity.from_json(content["int8"]) == parities["int8"]
    assert export._still_proven(out, spec.encoder_version, {"fp32": ParitySettings().fp32, "int8": NO_LIMITS}) is not None
    Encoder.load(out, variant="fp16", threads=1)


@pytest.mark.usefixtures("towers_of")
def test_export_champion__without_captions_uses_probes_and_any_clips(
    exported: Path, backbone: Path, tmp_path: Path
) -> None:
    archive = write_archive(tmp_path / "archive", all_colours(1, "train"))
    few = write_archive(tmp_path / "few", all_colours(1, "train")[:3])
    archive.pairs.write_bytes(few.pairs.read_bytes())
    _, parities = exporting(exported / "champion", backbone, archive, tmp_path / "encoder")
    parity = parities["fp32"]
    assert (parity.num_clips, parity.num_texts, parity.r1_difference_low) == (16, 12, None)
    assert parity.split == "probes" and parity.not_judged == ("R@1: there are no captions",)


@pytest.mark.usefixtures("towers_of")
def test_export_champion__without_clips_there_is_no_proof(
    exported: Path, backbone: Path, tmp_path: Path
) -> None:
    archive = write_archive(tmp_path / "archive", [])
    with raises(ArtifactError, code="no-shards"):
        exporting(exported / "champion", backbone, archive, tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()


@pytest.mark.usefixtures("towers_of")
def test_export_champion__a_recipe_that_the_judges_refuse_is_not_followed_by_another(
    exported: Path, backbone: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, measure = [], export._measure

    def strict(folder: Path, variant: str, reference: export.Reference, limits: ParityLimits) -> Parity:
        asked.append((variant, reference.split))
        parity = measure(folder, variant, reference, limits)
        return replace(parity, failed=("too far",)) if asked[-1] == ("int8", "test") else parity

    monkeypatch.setattr(export, "_measure", strict)
    spec, parities = exporting(exported / "champion", backbone, archive, tmp_path / "encoder", int8=NO_LIMITS)
    assert asked == [("fp32", "test"), ("int8", "validation"), ("int8", "test")]
    assert spec.variants == ("fp32",) and not (tmp_path / "encoder" / "int8").exists()
    assert parities["int8"].failed == ("too far",) and parities["int8"].split == "test"


@pytest.mark.slow
def test_export_champion__clip_sees_frames_one_by_one(
    export_once: Callable[[str, Callable[[Path], Path]], Path]
) -> None:
    folder = export_once("clip", write_clip)
    spec = EncoderSpec.load(folder / "encoder")
    assert (spec.family, spec.vision) == ("clip", "frame")
    assert json.loads((folder / "encoder" / "parity.json").read_text())["fp32"]["failed"] == []
    assert {path.name for path in (folder / "encoder" / "fp32").iterdir()} == {"text.onnx", "frame.onnx"}
    encoder = Encoder.load(folder / "encoder", threads=1)
    model = lora.merged(backbones.load(folder / "backbone"), adapter_of(folder / "champion"))
    clips = np.random.default_rng(0).integers(0, 256, (3, FRAMES_OF_CLIP, SIDE, SIDE, 3), np.uint8)
    for count in (1, 3):
        ours, theirs = encoder.embed_frames(clips[:count]), embed_frames(model, clips[:count])
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    stills = encoder.embed_images(clips[:, 0])
    np.testing.assert_allclose(stills, embed_frames(model, clips[:, :1]), atol=1e-5)
    np.testing.assert_allclose(encoder.embed_texts(TEXTS), embed_ids(model, ids_of(model, TEXTS).numpy()), atol=1e-5)


@pytest.fixture(scope="module")
def base_bundle(tmp_path_factory: pytest.TempPathFactory, archive: Archive, backbone: Path) -> Path:
    out = tmp_path_factory.mktemp("base") / "encoder"
    assert exporting_base(backbone, archive, out)[1]
    return out


def exporting_base(backbone: Path, archive: Archive, out: Path, **limits: ParityLimits) -> tuple[EncoderSpec, bool]:
    spec, _, is_new = export_base(
        backbone=str(backbone), pairs=archive.pairs, frames=archive.frames, out=out,
        limits={"fp32": ParitySettings().fp32, **limits}, max_clips=16,
    )
    return spec, is_new


def test_export_base__is_the_base_behind_the_same_gate(
    base_bundle: Path, exported: Path, archive: Archive, backbone: Path
) -> None:
    spec = EncoderSpec.load(base_bundle)
    assert spec.encoder_version != EncoderSpec.load(exported / "encoder").encoder_version
    model = backbones.load(backbone)
    pairs = load_pairs(archive.pairs, archive.frames, model.spec, split="test")
    vectors = Encoder.load(base_bundle, threads=1).embed_frames(np.asarray(pairs.frames))
    np.testing.assert_allclose(vectors, embed_frames(model, pairs.frames), atol=1e-4)
    assert json.loads((base_bundle / "parity.json").read_text())["fp32"]["min_cosine_video"] > 0.9999
    assert "without an adapter" in (base_bundle / "README.md").read_text()


def test_export_base__again_is_left_as_it_is_until_something_is_new(
    base_bundle: Path, archive: Archive, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Towers are copied, not exported: that takes seconds."""
    monkeypatch.setattr(export, "_export_towers", lambda model, folder: shutil.copytree(base_bundle / "fp32", folder))
    out = tmp_path / "encoder"
    shutil.copytree(base_bundle, out)
    assert not exporting_base(backbone, archive, out)[1]
    (out / "fp32" / "text.onnx").write_bytes(b"broken")
    assert exporting_base(backbone, archive, out)[1]  # mended
    assert not exporting_base(backbone, archive, out)[1]
    assert exporting_base(backbone, archive, out, fp16=NO_LIMITS)[1]  # a variant that is wanted now
    assert not exporting_base(backbone, archive, out, fp16=NO_LIMITS)[1]
    impossible = ParityLimits.model_construct(min_cosine=1.1, min_overlap=0, min_r1_difference=-1)
    spec, is_new = exporting_base(backbone, archive, out, fp16=impossible)
    assert is_new and spec.variants == ("fp32",)  # what the gate let through, it does not any more
    assert not exporting_base(backbone, archive, out, fp16=impossible)[1]  # and is not tried again
    with raises(GateFailed, code="export-differs"):  # other weights: these towers are not theirs
        exporting_base(write_viclip(tmp_path / "other", seed=5), archive, out)
    assert EncoderSpec.load(out).encoder_version == spec.encoder_version
