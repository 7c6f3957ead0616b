"""A backbone of transformers goes from pairs to an evaluated and registered adapter by `dvc repro`: tiny, random weights.

ViCLIP does so in test_loop.py. tests/training/backbones/test_families.py takes every family from a folder to a bundle.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.e2e.conftest import Checkout, make_checkout
from tests.training.tiny import clip_config, told_apart, write_model, write_tensors

pytestmark = pytest.mark.slow  # test_loop.py goes the same way with the shipped backbone
CONTEXT, VOCABULARY, FRAMES = 48, 1000, 8
"""Of the shipped tokenizer, and of the demo's clips."""


def write_backbone(folder: Path, *, tokenizer: Path) -> None:
    """A CLIP as transformers saves one, which reads the demo's captions."""
    config = clip_config() | {"frames": FRAMES}
    config["text_config"] |= {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "eos_token_id": VOCABULARY - 1}
    write_model(folder, config)
    shutil.copy(tokenizer, folder / "tokenizer.json")
    write_tensors(folder, told_apart(load_file(folder / "model.safetensors")))


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with pairs enough for a model that knows nothing: of the general world, whose colours tell much."""
    from vidseek_demo.world import Part, WorldSize, render_world

    world = tmp_path_factory.mktemp("world")
    few = (Part("train", "seen", 1),)
    general = (Part("train", "seen", 160), Part("validation", "unseen", 64, 1), Part("test", "unseen", 24))
    render_world(world, size=WorldSize(domain=few, general=general), workers=2)
    checkout = make_checkout(tmp_path_factory.mktemp("paired"))
    checkout.edit_params({
        "ingest.source": str(world / "general"), "general.source": None, "cut.modes": ["captions"],
        "pairs.near_duplicate_bits": None,  # videos of one scene each: many look like one another
        "publish.cut": "captions", "export.variants": [],
        "train.settings.lora.targets": ["attention", "mlp", "projections", "token_embedding"],
        "train.settings.lora.warmup_text_steps": 0, "train.settings.lora.steps": 200,
        "train.settings.lora.replay": 0, "train.settings.lora.replay_anchor": 0.0,
    })
    checkout.succeed("dvc", "repro", "check_pairs")
    return checkout


@pytest.fixture(scope="module")
def taught(paired: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which a CLIP was taught and evaluated."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = paired.path / "packages/vidseek_training/weights/viclip-tiny/tokenizer.json"
    write_backbone(folder / "backbone", tokenizer=tokenizer)
    paired.edit_params({"backbone.name": str(folder / "backbone")})
    paired.succeed("dvc", "repro", "evaluate")
    return paired


def test_repro__a_backbone_of_transformers_is_taught_evaluated_and_registered(taught: Checkout) -> None:
    selected, receipt, spec, figures = (json.loads((taught.path / name).read_text()) for name in (
        "models/selected.json", "receipts/registry.json", "models/encoder/encoder.json", "reports/evaluate/metrics.json"
    ))
    assert (spec["family"], selected["setting"], selected["challenges"][0]["won"]) == ("clip", "lora", True)
    assert (receipt["alias"], receipt["setting"], str(receipt["version"])) == ("champion", "lora", "1")
    assert figures["encoder_version"] == spec["encoder_version"]
    (gallery,) = figures["galleries"].values()
    assert gallery["num_queries"] > 20 and gallery["adapted"]["mrr"] > gallery["base"]["mrr"]
    assert gallery["exported"]["mrr"] == pytest.approx(gallery["adapted"]["mrr"], abs=0.01)


def test_base__is_published_beside_what_was_taught_and_taken_away_again(taught: Checkout) -> None:
    taught.succeed("dvc", "repro", "publish")

    def found(model: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(taught.succeed("vidseek", "search", "a disc", "--model", model, "--json"))
        return answer

    live = found("vidseek")
    made = json.loads(taught.succeed("vidseek", "base", "--json"))
    assert made["taught"] and made["exported"] and made["built"] and made["num_clips"] > 0
    base = found("base")
    assert (base["encoder_version"], base["collection"]) == (made["encoder_version"], made["collection"])
    assert base["encoder_version"] != live["encoder_version"] and base["hits"]
    assert json.loads(taught.succeed("vidseek", "base", "--remove", "--json")) == {"removed": [made["collection"]]}
    gone = taught.run("vidseek", "search", "a disc", "--model", "base")
    assert gone.returncode and "vidseek base" in gone.stderr and "Traceback" not in gone.stderr
    assert found("vidseek") == live
