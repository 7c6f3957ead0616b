"""The benchmark of settings: that it runs from a packed file to figures, on towers of no size."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.teaching import flickr, recipe, recipe_rendered
from bench.teaching.recipe import SMOKE, SMOKE_TRIALS, TRIALS, TRIALS_RENDERED, Side, read_packed, run, write_packed
from vidseek_training.fitting.presets import Model, resolve
from vidseek_training.settings import TrainSettings

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230), "white": (240, 240, 240)}
ROOT = Path(__file__).parents[2]


def side_of(name: str, count: int) -> Side:
    """Pictures of one colour each."""
    rng, names, jpegs, captions = np.random.default_rng(len(name)), [], [], []
    for number in range(count):
        said, colour = list(COLOURS.items())[number % len(COLOURS)]
        pixels = np.clip(np.array(colour) + rng.normal(0, 20, (20, 24, 3)), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG")
        names.append(f"{name}{number}.jpg")
        jpegs.append(file.getvalue())
        captions.append([f"a {said} wall number {number}", f"one {said} thing"])
    return Side(names, jpegs, captions)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    sides = {
        f"{domain}_{split}": side_of(f"{domain}_{split}", count) for domain in ("general", "dogs", "exercise")
        for split, count in (("train", 40), ("validation", 8), ("test", 8))
    }
    write_packed(sides, folder)
    captions = [caption for own in sides["general_train"].captions for caption in own]
    flickr.write_tokenizer(captions, folder / "tokenizer.json")
    return folder


def test_read_packed__gives_what_was_written(packed: Path) -> None:
    wanted, found = side_of("dogs_test", 8), read_packed(packed)["dogs_test"]
    assert found == wanted and found.pixels(16).shape == (8, 16, 16, 3)


@pytest.mark.slow
def test_rendered_sides__show_nothing_on_two_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_rendered, "NUM_TRAIN", dict.fromkeys(recipe_rendered.WORLDS, 30))
    monkeypatch.setattr(recipe_rendered, "SIDE_PX", 16)
    for appearance in (recipe_rendered.GENERAL, recipe_rendered.THERMAL):
        sides = recipe_rendered._scenes(appearance)
        assert all(not set(sides[one]) & set(sides[other]) for one, other in itertools.combinations(sides, 2))
        assert min(map(len, sides.values())) > 60
    found = recipe_rendered.rendered_sides()
    assert set(found) == {f"{name}_{side}" for name in recipe_rendered.WORLDS for side in ("train", "validation", "test")}
    for each in found.values():
        assert len(each.names) == len(each.jpegs) == len(each.captions) and all(len(set(own)) == 3 for own in each.captions)
        assert not {word for own in each.captions for one in own for word in one.split()} & {"moves", "drifts", "tracking"}
    assert found == recipe_rendered.rendered_sides()
    in_jargon = {word for side in ("train", "test") for own in found[f"jargon_{side}"].captions for one in own
                 for word in one.replace(",", "").split()}
    replaced = [said for thing in recipe_rendered.JARGON for said in recipe_rendered.GENERAL_WORDS[thing]]
    plain = {word for said in replaced for word in said.split()}
    assert not in_jargon & (plain - {"a", "the", "in", "on", "over", "at", "of"})


def test_in_jargon__names_every_colour_shape_and_ground_and_nothing_else() -> None:
    found = recipe_rendered.in_jargon("a big red half moon, dotted, in front of bricks")
    assert found == "a big zorb yilt, dotted, on gropp"
    assert recipe_rendered.in_jargon("one little plus sign against grey fog") == "one little kadge on tarq"
    names, scene = recipe_rendered.JARGON, recipe_rendered.GENERAL
    assert len(set(names.values())) == len(names) and set(names) == {*recipe_rendered.SHAPES, *scene.tones, *scene.grounds}


@pytest.mark.slow
def test_run__leaves_a_file_of_gains_losses_and_strengths(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "recipe.json"
    run(packed, tmp_path, out, device="cpu", shape=SMOKE, trials=SMOKE_TRIALS, pretrain_seconds=0.0, budget_seconds=500.0,
        workers=0)
    report = json.loads(out.read_text())
    assert [each["name"] for each in report["trials"]] == [each.name for each in SMOKE_TRIALS]
    for each in report["trials"]:
        assert each["max_update_ratio"] >= max(each["update_ratios"]) > 0 and each["in_layer"]
        assert {"before", "after", "change"} == each["on_domain"]["r1"].keys() == each["on_general"]["r10"].keys()
    careful, strong, words = report["trials"]
    assert careful["max_update_ratio"] < strong["max_update_ratio"]
    assert careful["most_held"] == careful["steps_held"] == 0 < careful["num_layers"]
    assert words["num_layers"] == 6 * SMOKE.layers and words["in_layer"].startswith("clip.text_model")
    assert careful["num_steps"] == words["num_steps"] == 10 and careful["settings"]["preset"] == "base-few"


def test_trials__are_settings_that_a_model_of_clip_s_size_takes() -> None:
    for trial in (*TRIALS, *TRIALS_RENDERED):
        asked = TrainSettings(preset=trial.preset, **trial.changes)  # type: ignore[arg-type]
        assert resolve(asked, Model("B/32", 151_277_313, 25_296_896), 660).preset == trial.preset
    for trials in (TRIALS, TRIALS_RENDERED):
        assert len({(trial.domain, trial.name) for trial in trials}) == len(trials)


@pytest.mark.slow
def test_bench__needs_no_decoder_of_videos_and_no_mlflow() -> None:
    """The device machine has neither."""
    code = (
        "import sys\nfor name in ('av', 'decord', 'mlflow', 'great_expectations', 'dvc'):\n    sys.modules[name] = None\n"
        "import bench.teaching.recipe"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)


def test_trials__of_the_presets_come_first() -> None:
    assert {(each.name, each.domain) for each in recipe.TRIALS[:2]} == {("preset", "exercise"), ("preset", "dogs")}


@pytest.mark.slow
def test_run__goes_on_with_the_base_that_is_there(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, scale = tmp_path / "recipe.json", {"device": "cpu", "shape": SMOKE, "pretrain_seconds": 0.0, "workers": 0}
    run(packed, tmp_path, out, trials=SMOKE_TRIALS[:1], budget_seconds=500.0, **scale)  # type: ignore[arg-type]
    first = json.loads(out.read_text())
    monkeypatch.setattr(recipe, "_pretrain", lambda *_, **__: pytest.fail("the base is there"))
    run(packed, tmp_path, out, trials=SMOKE_TRIALS, budget_seconds=500.0, **scale)  # type: ignore[arg-type]
    second = json.loads(out.read_text())
    assert [each["name"] for each in second["trials"]] == [each.name for each in SMOKE_TRIALS]
    assert second["trials"][0] == first["trials"][0] and second["seconds"] > first["seconds"]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [SMOKE, dataclasses.replace(SMOKE, kept_patches=0.5, captions=1, most_tokens=6)])
def test_pretraining__teaches_with_whole_pictures_and_with_parts_of_them(packed: Path, shape: recipe.Shape) -> None:
    training = recipe.Pretraining(read_packed(packed)["general_train"], shape, packed / "tokenizer.json", "cpu")
    seen: list[int] = []
    training.model.clip.vision_model.encoder.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["inputs_embeds"].shape[1]), with_kwargs=True)
    losses = recipe.torch.stack([training._step(step, 0.2) for step in range(30)])
    assert set(seen) == {1 + round(4 * shape.kept_patches)}
    assert losses[-5:, 0].mean() < losses[:5, 0].mean() and losses[-5:, 2].mean() < losses[:5, 2].mean()


@pytest.mark.parametrize(("seconds", "steps"), [(0.0, 8), (0.5, 8), (5.0, 50), (60.0, 600)])
def test_pretraining__goes_on_for_as_long_as_it_is_told(
    packed: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, steps: int
) -> None:
    clock = [0.0]

    def step(self: recipe.Pretraining, number: int, passed: float) -> recipe.Tensor:
        clock[0] += 0.1
        assert 0 <= passed <= 1
        return recipe.torch.zeros(3)

    training = recipe.Pretraining(read_packed(packed)["general_train"], SMOKE, packed / "tokenizer.json", "cpu")
    monkeypatch.setattr(recipe.Pretraining, "_step", step)
    monkeypatch.setattr(recipe.time, "monotonic", lambda: clock[0])
    assert training.run(seconds) == pytest.approx(steps, abs=1)
