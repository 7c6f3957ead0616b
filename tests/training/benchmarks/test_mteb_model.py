"""A bundle under MTEB's own evaluation, on a task that is made here: nothing is fetched."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.raising import raises
from tests.serving.colours import picture, video
from tests.tiny_bundle import COLOURS, colour_vector, write_tiny_bundle
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ConfigError, InputRejected, ServiceError
from vidseek_training.benchmarks.mteb_model import MtebModel, run_tasks

mteb = pytest.importorskip("mteb", reason="mteb is not installed: pip install 'vidseek[mteb]'")

NAMES = list(COLOURS)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(folder)
    return Encoder.load(folder)


def task_of(corpus: dict[str, list[Any]], *, modality: str, feature: Any = None) -> Any:
    """MTEB's own task of one colour's name for each colour's picture or video."""
    from datasets import Dataset
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.mocks import MockVideoRetrievalT2V

    documents = Dataset.from_dict({"id": NAMES, "modality": [modality] * len(NAMES), **corpus})
    if feature is not None:
        documents = documents.cast_column(modality, feature)
    queries = Dataset.from_dict({"id": [f"q-{name}" for name in NAMES], "text": NAMES, "modality": ["text"] * len(NAMES)})

    class Colours(MockVideoRetrievalT2V):  # type: ignore[misc]
        def load_data(self, **_: Any) -> None:
            self.dataset = {"default": {"test": RetrievalSplitData(
                queries=queries, corpus=documents, relevant_docs={f"q-{name}": {name: 1} for name in NAMES}, top_ranked=None,
            )}}
            self.data_loaded = True

    Colours.metadata = copy.deepcopy(MockVideoRetrievalT2V.metadata)
    Colours.metadata.name = "Colours"
    Colours.metadata.modalities = ["text", modality]
    Colours.metadata.category = f"t2{modality[0]}"
    return Colours()


def judged(model: MtebModel, task: Any) -> dict[str, float]:
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    (scores,) = result.task_results[0].scores["test"]
    return dict(scores)


def test_videos__each_is_found_by_its_colour(encoder: Encoder, tmp_path: Path) -> None:
    from datasets import Video

    videos = [{"bytes": video(name, tmp_path / f"{name}.mp4"), "path": None} for name in NAMES]
    scores = judged(MtebModel(encoder, "tiny"), task_of({"video": videos}, modality="video", feature=Video()))
    assert scores["hit_rate_at_1"] == 1
    wrong = videos[1:] + videos[:1]
    scores = judged(MtebModel(encoder, "tiny"), task_of({"video": wrong}, modality="video", feature=Video()))
    assert scores["hit_rate_at_1"] == 0


def test_videos__by_path(encoder: Encoder, tmp_path: Path) -> None:
    from datasets import Dataset, Video
    from torch.utils.data import DataLoader

    for name in NAMES:
        video(name, tmp_path / f"{name}.mp4")
    rows = Dataset.from_dict({"video": [str(tmp_path / f"{name}.mp4") for name in NAMES]}).cast_column("video", Video())
    vectors = MtebModel(encoder, "tiny").encode(DataLoader(rows, batch_size=3))
    assert np.diag(vectors @ np.stack(list(map(colour_vector, COLOURS.values()))).T) == pytest.approx(1, abs=0.01)


def test_pictures__and_rows_of_two_modalities(encoder: Encoder) -> None:
    from datasets import Dataset
    from torch.utils.data import DataLoader

    pictures = [Image.open(io.BytesIO(picture(name))) for name in NAMES]
    assert judged(MtebModel(encoder, "tiny"), task_of({"image": pictures}, modality="image"))["hit_rate_at_1"] == 1
    both = DataLoader(Dataset.from_dict({"text": NAMES[::-1], "image": pictures}), batch_size=4)
    vectors = MtebModel(encoder, "tiny").encode(both)
    wanted = colour_vector(COLOURS[NAMES[0]]) + colour_vector(COLOURS[NAMES[-1]])
    assert vectors[0] == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-3)


def test_encode__a_dataset_without_anything_known__is_refused(encoder: Encoder) -> None:
    from datasets import Dataset
    from torch.utils.data import DataLoader

    with raises(InputRejected, code="unknown-modality", naming="['sound']"):
        MtebModel(encoder, "tiny").encode(DataLoader(Dataset.from_dict({"sound": [1]})))


def test_similarity__is_the_cosine(encoder: Encoder) -> None:
    rows = np.eye(4, dtype=np.float32)[:2]
    model = MtebModel(encoder, "tiny")
    assert model.similarity(rows, np.eye(4, dtype=np.float32)).shape == (2, 4)
    assert model.similarity_pairwise(rows, rows[::-1].copy()).tolist() == [0, 0]


def test_meta__names_the_encoder(encoder: Encoder) -> None:
    meta = MtebModel(encoder, "tiny").mteb_model_meta
    assert (meta.name, meta.revision, meta.embed_dim) == ("vidseek/tiny", encoder.spec.encoder_version, 4)


def test_run_tasks__one_that_is_not__is_refused(encoder: Encoder, tmp_path: Path) -> None:
    with raises(ConfigError, code="unknown-task"):
        run_tasks(encoder, "tiny", ["Colourful"], tmp_path)


def test_run_tasks__a_hub_that_is_not_reached_is_a_service_error(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'mteb/MSVD' on the Hub")

    monkeypatch.setattr(mteb, "get_task", lambda name: name)
    monkeypatch.setattr(mteb, "evaluate", refuse)
    with raises(ServiceError, code="hub-no-answer", naming="mteb/MSVD") as caught:
        run_tasks(encoder, "tiny", ["MSVDT2VRetrieval"], tmp_path)
    assert "HF_HUB_OFFLINE=0" in caught.value.remedy


def test_run_tasks__main_score_of_each(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Video

    videos = [{"bytes": video(name, tmp_path / f"{name}.mp4"), "path": None} for name in NAMES]
    task = task_of({"video": videos}, modality="video", feature=Video())
    monkeypatch.setattr(mteb, "get_task", lambda name: task)
    assert run_tasks(encoder, "tiny", ["Colours"], tmp_path / "out") == {"Colours": 1.0}
    assert list((tmp_path / "out").rglob("Colours.json"))
