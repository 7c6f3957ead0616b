from __future__ import annotations

import errno
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import torch
from huggingface_hub import constants, errors
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tests.forking import run_command
from tests.raising import raises
from tests.training.hub_server import COMMIT, Hub, Repository, Trouble, blob_id, running_hub
from tests.training.tiny import write_clip
from vidseek.cli import app
from vidseek.configuration.hub_pin import pin_backbone
from vidseek_media.errors import ArtifactError, ServiceError, VidseekError
from vidseek_training import backbones
from vidseek_training.export.onnx_export import _spec_of
from vidseek_training.fitting import lora
from vidseek_training.fitting.train import _lineage
from vidseek_training.hub import HubName, faults, fetch, find_snapshot, pinned
from vidseek_training.hub.faults import (
    HubAddressError,
    HubBusy,
    HubCutOff,
    HubFailed,
    HubGated,
    HubNameError,
    HubNotCached,
    HubNotFound,
    HubOffline,
    HubRevisionNotFound,
    HubUnreachable,
    HubWrongKind,
    fault_of,
)
from vidseek_training.hub.files import choose_weights, known_weights, parts_of
from vidseek_training.settings import TrainSettings

NAME = "someone/tiny-clip"
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited, without waiting."""
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def set_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """As HF_ENDPOINT, which the client reads when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(server: Hub, folder: Path, cache: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub with one CLIP and everything that is published beside one; the client asks it."""
    set_endpoint(monkeypatch, server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    others = {
        "flax_model.msgpack": b"flax" * 100, "tf_model.h5": b"tf", "pytorch_model.bin": b"older", "onnx/model.onnx": b"onnx",
        "training_args.bin": b"pickle", "optimizer.pt": b"pickle", ".gitattributes": b"", "run.py": b"import os",
        "README.md": b"---\nlicense: mit\n---\n", "preprocessor_config.json": b"{}",
    }
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.repositories = {NAME: Repository({**files, **others}, pipeline_tag="zero-shot-image-classification")}
    server.troubles, server.requests, server.token = [], [], ""
    return server


def fetched_files(hub: Hub) -> set[str]:
    """What was transferred, by its name."""
    return {path.split("/", 5)[5] for path in hub.paths() if "/resolve/" in path}


CODES = [each.code for each in vars(faults).values() if isinstance(each, type) and issubclass(each, VidseekError)]


def fault(name: str = NAME) -> VidseekError:
    """What a fetch of it fails with: each class has its code."""
    with raises(VidseekError, code=[*filter(None, CODES), "not-writable"]) as caught:
        fetch(name)
    assert caught.value.remedy and name.split("@")[0] in caught.value.message
    return caught.value


# What is fetched


def test_fetch__one_set_of_weights_tokenizer_and_configs_pinned_and_loadable(hub: Hub, folder: Path) -> None:
    said: list[str] = []
    done = fetch(NAME, say=said.append)
    assert done.name == f"{NAME}@{COMMIT}" and done.num_fetched == len(done.files)
    wanted = {"config.json", "preprocessor_config.json", "README.md", "tokenizer.json", "model.safetensors"}
    assert set(done.files) == wanted == {path.name for path in done.folder.iterdir()}
    assert not done.is_pickled
    assert {"flax_model.msgpack", "pytorch_model.bin", "run.py", "onnx/model.onnx"} <= set(done.left_out)
    assert COMMIT in said[0] and "flax_model.msgpack" in said[0]
    model = backbones.load(done.name)
    assert model.spec.name == done.name and backbones.revision_of(done.name) == COMMIT
    reference = load_file(folder / "model.safetensors")
    assert torch.equal(model.state_dict()["clip.visual_projection.weight"], reference["visual_projection.weight"])


def test_fetch__lists_first_and_sends_no_token_to_the_storage(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.token, hub.repositories[NAME].gated = "hf_secret", True
    fetch(NAME)
    assert hub.requests[0][1] == f"/api/models/{NAME}"
    assert "authorization" in hub.requests[0][2]
    stored = [headers for _, path, headers in hub.requests if path.startswith("/lfs/")]
    assert stored and not any("authorization" in headers for headers in stored)


def test_fetch__twice_transfers_nothing(hub: Hub) -> None:
    first = fetch(NAME)
    hub.requests.clear()
    second = fetch(first.name)
    assert second.num_fetched == 0 and second.files == first.files
    assert all(path.startswith("/api/") for path in hub.paths())


def test_fetch__the_unpinned_name_is_the_commit_that_was_fetched_last(hub: Hub) -> None:
    fetch(NAME)
    assert pinned(NAME) == f"{NAME}@{COMMIT}"
    hub.repositories[NAME].commit = "f" * 40
    assert pinned(NAME) == f"{NAME}@{COMMIT}"  # nobody has asked the hub again
    fetch(NAME)
    assert pinned(NAME) == f"{NAME}@{'f' * 40}"
    assert find_snapshot(HubName(NAME, COMMIT)).name == COMMIT  # the earlier one stays


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/3", COMMIT, COMMIT[:9]])
def test_fetch__a_tag_a_branch_and_a_commit_are_pinned_alike(hub: Hub, revision: str) -> None:
    hub.repositories[NAME].refs = ("main", "v1.0", "refs/pr/3")
    done = fetch(f"{NAME}@{revision}")
    assert done.name == f"{NAME}@{COMMIT}"
    assert pinned(f"{NAME}@{revision}") == done.name
    with raises(HubNotCached, code="hub-not-cached", naming=COMMIT):  # main was not asked for
        pinned(NAME)


def test_fetch__a_renamed_model_has_its_new_name(hub: Hub) -> None:
    hub.repositories["old/name"] = Repository({}, renamed_to=NAME)
    said: list[str] = []
    done = fetch("old/name", say=said.append)
    assert done.name == f"{NAME}@{COMMIT}" and NAME in said[0]


def test_fetch__weights_in_parts_come_with_their_index_and_are_read(hub: Hub, folder: Path, tmp_path: Path) -> None:
    files = hub.repositories[NAME].files
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for part, of in parts.items():
        save_file({name: tensors[name] for name in of}, tmp_path / part)
        files[part] = (tmp_path / part).read_bytes()
    places = {name: part for part, of in parts.items() for name in of}
    files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": places}).encode()
    del files["model.safetensors"]
    done = fetch(NAME)
    assert {*parts, "model.safetensors.index.json"} <= set(done.files) and "pytorch_model.bin" in done.left_out
    wanted, found = backbones.load(folder).state_dict(), backbones.load(done.name).state_dict()
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert len(backbones.weights_sha256(done.name)) == 64
    (done.folder / "model-00002-of-00002.safetensors").unlink()
    with raises(HubNotCached, code="hub-not-cached", naming="weights"):
        backbones.load(done.name)
    assert fetch(done.name).num_fetched == 1


def test_fetch__older_weights_only_where_there_is_nothing_else(hub: Hub, folder: Path, tmp_path: Path) -> None:
    files = hub.repositories[NAME].files
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    files["pytorch_model.bin"] = (tmp_path / "pytorch_model.bin").read_bytes()
    del files["model.safetensors"]
    done = fetch(NAME)
    assert done.is_pickled and "pytorch_model.bin" in done.files
    assert backbones.load(done.name).spec.family == "clip"


@given(names=st.sets(st.sampled_from([
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
    "flax_model.msgpack", "tf_model.h5", "model.ckpt", "training_args.bin", "rust_model.ot",
])))
def test_choose_weights__is_never_a_pickle_where_safe_ones_are(names: set[str]) -> None:
    found = choose_weights(names, ("pytorch_model.bin", "model.safetensors"))
    assert found is None or (found in names and ".msgpack" not in found and "training" not in found)
    if any("safetensors" in name for name in names):
        assert found is not None and "safetensors" in found
    assert set(known_weights()) >= {"model.safetensors", "pytorch_model.bin"}


@pytest.mark.parametrize("part", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "model.bin", "model.pkl", ""])
def test_parts_of__an_index_names_weights_beside_it(tmp_path: Path, part: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": part}}))
    with pytest.raises(ValueError, match="wanted"):
        parts_of(index)


def test_fetch__the_commit_stands_in_the_adapter_in_encoder_json_and_in_the_run(hub: Hub, tmp_path: Path) -> None:
    fetch(NAME)
    model = backbones.load(NAME)  # as params.yaml may name it
    handle = lora.attach(model, TrainSettings(rank=2, alpha=2.0, targets=("projections",)))
    lora.save(handle, model, tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "vidseek.json").read_text())["backbone"] == f"{NAME}@{COMMIT}"
    assert _spec_of(model, model.spec.tokenizer).backbone == f"{NAME}@{COMMIT}"
    lineage = _lineage(pinned(NAME), tmp_path / "none", tmp_path / "none", None)
    assert lineage["backbone"] == f"{NAME}@{COMMIT}" and lineage["backbone_revision"] == COMMIT


# Half a cache


@pytest.mark.parametrize("lost", ["model.safetensors", "tokenizer.json", "config.json"])
def test_fetch__completes_half_a_cache(hub: Hub, lost: str) -> None:
    done = fetch(NAME)
    (done.folder / lost).unlink()
    with raises(HubNotCached, code="hub-not-cached") as caught:
        find_snapshot(HubName.asked(done.name))
    assert "vidseek backbone fetch" in caught.value.remedy
    hub.requests.clear()
    assert fetch(done.name).num_fetched == 1 and fetched_files(hub) <= {lost}
    assert backbones.load(done.name).spec.family == "clip"


def test_fetch__mends_what_is_damaged(hub: Hub) -> None:
    done = fetch(NAME)
    blob = (done.folder / "model.safetensors").resolve()
    blob.write_bytes(b"\0" * blob.stat().st_size)  # as long as it was
    (done.folder / "tokenizer.json").resolve().write_bytes(b"{}")
    assert fetch(done.name).num_fetched == 2
    assert backbones.load(done.name).spec.family == "clip"


def test_fetch__a_cache_that_another_program_left_is_completed(hub: Hub, cache: Path) -> None:
    """transformers leaves configs and weights, and a listing of all files of the repository."""
    from huggingface_hub import snapshot_download

    snapshot_download(NAME, allow_patterns=["config.json", "model.safetensors"])
    with raises(HubNotCached, code="hub-not-cached", naming="tokenizer"):
        backbones.load(NAME)
    assert fetch(NAME).num_fetched == 3
    assert backbones.load(NAME).spec.family == "clip"


def test_fetch__killed_between_files_leaves_the_earlier_commit_in_use(hub: Hub) -> None:
    fetch(NAME)
    hub.repositories[NAME].commit = "e" * 40
    hub.troubles = [Trouble(r"/resolve/e+/model\.safetensors", 404)]
    fault()
    assert pinned(NAME) == f"{NAME}@{COMMIT}"
    hub.troubles = []
    assert fetch(NAME).name.endswith("e" * 40)


# What goes wrong


def test_fetch__not_found(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    error = fault("someone/nothing")
    assert type(error) is HubNotFound and error.code == "hub-not-found" and "HF_TOKEN" in error.remedy
    hub.token = "hf_mine"
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert type(fault("someone/nothing")) is HubNotFound


def test_fetch__a_revision_that_is_not_there(hub: Hub) -> None:
    error = fault(f"{NAME}@v9")
    assert type(error) is HubRevisionNotFound and "v9" in error.message


def test_fetch__a_gated_model_says_where_to_ask(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories[NAME].gated = True
    error = fault()
    assert type(error) is HubGated and f"{hub.url}/{NAME}" in error.remedy and "hf auth login" in error.remedy
    monkeypatch.setenv("HF_TOKEN", "hf_not_let_in")
    error = fault()
    assert type(error) is HubGated and "hf auth login" not in error.remedy
    hub.token = "hf_not_let_in"
    assert fetch(NAME).num_fetched == 5


def test_fetch__a_private_model_is_fetched_with_a_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories[NAME].private, hub.token = True, "hf_mine"
    assert type(fault()) is HubNotFound
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert fetch(NAME).num_fetched == 5


def test_fetch__a_token_that_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    hub.troubles = [Trouble("/api/", 401, headers={"X-Error-Message": "Invalid credentials in Authorization header"})]
    error = fault()
    assert type(error) is HubGated and "HF_TOKEN" in error.remedy and "hf_old" not in str(error)


@pytest.mark.parametrize(("status", "kind"), [(403, HubGated), (451, HubFailed), (400, HubFailed), (418, HubFailed)])
def test_fetch__a_refusal(hub: Hub, status: int, kind: type[VidseekError]) -> None:
    hub.troubles = [Trouble("/api/", status, body=b'{"error": "because"}')]
    error = fault()
    assert type(error) is kind and "because" in error.message


def test_fetch__no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    set_endpoint(monkeypatch, "http://127.0.0.1:9")
    error = fault()
    assert type(error) is HubUnreachable and isinstance(error, ServiceError)
    assert "127.0.0.1:9" in error.message and "Connection refused" in error.message
    set_endpoint(monkeypatch, "http://hub.invalid")
    assert type(fault()) is HubUnreachable


def test_fetch__the_network_goes_away_between_files(hub: Hub) -> None:
    """The client then says only that its cache does not have the file either."""
    hub.troubles = [Trouble("resolve.*tokenizer.json", 503)]
    error = fault()
    assert type(error) is HubFailed and "503" in error.message and "tokenizer.json" in error.message
    hub.troubles = []
    assert 0 < fetch(NAME).num_fetched < 5


def test_fetch__an_address_that_is_none(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in ("hub.example", "ftp://hub.example", "http://[::1"):
        set_endpoint(monkeypatch, endpoint)
        assert "HF_ENDPOINT" in fault().remedy


@pytest.mark.slow
def test_fetch__a_proxy_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    said = fetch_in_process(hub, tmp_path, NAME, HTTP_PROXY="http://127.0.0.1:9", NO_PROXY="")
    assert said.returncode == ServiceError.exit_code and "cannot be reached" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("body", [b"<html>log in to the hotel</html>", b"[]", b"{}", b"null", b'{"id": 3}', b'{"id":"a/b"}'])
def test_fetch__what_answers_is_no_hub(hub: Hub, body: bytes) -> None:
    hub.troubles = [Trouble("/api/", 200, body=body, headers={"Content-Type": "text/html"})]
    error = fault()
    assert type(error) is HubFailed and "HF_ENDPOINT" in error.remedy


def test_fetch__files_without_the_hub_s_headers(hub: Hub) -> None:
    hub.troubles = [Trouble("/resolve/", 200, body=b"{}")]
    error = fault()
    assert type(error) is HubFailed and "HF_ENDPOINT" in error.remedy


def test_fetch__too_many_requests_waits_as_told(hub: Hub, pauses: list[float]) -> None:
    hub.troubles = [Trouble("/api/", 429, times=2, headers={"Retry-After": "7"})]
    assert fetch(NAME).num_fetched == 5
    assert pauses == [7, 7]


def test_fetch__too_many_requests_for_long_says_how_long(hub: Hub, pauses: list[float]) -> None:
    limit = {"RateLimit": '"api";r=0;t=290', "RateLimit-Policy": '"fixed window";"api";q=5;w=300'}
    hub.troubles = [Trouble("/api/", 429, headers=limit)]
    error = fault()
    assert isinstance(error, HubBusy) and error.wait_seconds == 290 and "290 seconds" in error.remedy and not pauses
    hub.troubles = [Trouble("/api/", 429)]
    error = fault()
    assert isinstance(error, HubBusy) and error.wait_seconds is None and pauses == [1, 2]


def test_fetch__too_many_requests_for_a_file_are_waited_for_by_the_client(hub: Hub, pauses: list[float]) -> None:
    hub.troubles = [Trouble("/resolve/.*tokenizer.json", 429, times=2, headers={"Retry-After": "3"})]
    assert fetch(NAME).num_fetched == 5
    assert pauses and all(pause >= 3 for pause in pauses)


def test_fetch__a_hub_that_is_broken_for_a_moment_is_asked_again(hub: Hub, pauses: list[float]) -> None:
    hub.troubles = [Trouble("/api/", 502, times=1)]
    assert fetch(NAME).num_fetched == 5 and pauses == [1]
    hub.troubles = [Trouble("/api/", 503)]
    error = fault(f"{NAME}@main")
    assert isinstance(error, HubFailed) and "503" in error.message


def test_fetch__a_transfer_that_is_cut_off_goes_on_where_it_was(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.troubles = [Trouble("/lfs/", cut_after=1000, times=2, method="GET")]
    done = fetch(NAME)
    ranges = [headers["range"] for _, path, headers in hub.requests if path.startswith("/lfs/") and "range" in headers]
    assert ranges == ["bytes=1000-", "bytes=2000-"]
    assert backbones.load(done.name).spec.family == "clip"


def test_fetch__a_transfer_that_is_always_cut_off(hub: Hub, cache: Path) -> None:
    hub.troubles = [Trouble("/lfs/", cut_after=0, method="GET")]
    error = fault()
    assert type(error) is HubCutOff and "model.safetensors" in error.message and "again" in error.remedy
    with raises(HubNotCached, code="hub-not-cached"):
        find_snapshot(HubName(NAME, COMMIT))
    hub.troubles = []
    assert fetch(NAME).num_fetched == 1  # what came before it is kept


@pytest.mark.slow
def test_fetch__a_storage_behind_the_hub_that_is_not_reached_is_gone_round(hub: Hub, tmp_path: Path) -> None:
    """hf_xet says so by a plain RuntimeError. Its settings are read when its library starts: a process of its own."""
    hub.repositories[NAME].xet_storage = "http://127.0.0.1:9"
    said = fetch_in_process(
        hub, tmp_path, NAME, "--json", HF_XET_CLIENT_RETRY_MAX_ATTEMPTS="1", HF_XET_CLIENT_RETRY_BASE_DELAY="10ms",
        HF_XET_CACHE=str(tmp_path / "xet"),
    )
    assert said.returncode == 0, said.stderr
    assert "Xet" in said.stderr and "the hub itself" in said.stderr
    assert json.loads(said.stdout)["num_fetched"] == 5
    assert any(path.startswith("/lfs/") for path in hub.paths())


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"short", b"x" * 2_000_000])
def test_fetch__other_bytes_than_were_listed_are_not_kept(hub: Hub, file: str, content: bytes) -> None:
    hub.troubles = [Trouble(f"(resolve|lfs)/.*{file}", content=content)]
    error = fault()
    assert type(error) is HubCutOff and file in error.message
    hub.troubles = []
    assert backbones.load(fetch(NAME).name).spec.family == "clip"


def test_fetch__bytes_of_the_right_size_and_another_content_are_not_kept(hub: Hub) -> None:
    size = len(hub.repositories[NAME].files["model.safetensors"])
    hub.troubles = [Trouble("/lfs/", content=b"\0" * size)]
    assert type(fault()) is HubCutOff
    hub.troubles = []
    assert backbones.load(fetch(NAME).name).spec.family == "clip"


def test_fetch__a_full_disk(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    used = shutil.disk_usage("/")
    monkeypatch.setattr("vidseek_training.hub.fetching.shutil.disk_usage", lambda _: used._replace(free=10))
    error = fault()
    assert type(error) is ArtifactError and "HF_HOME" in error.remedy
    assert "model.safetensors" not in fetched_files(hub)


def test_fetch__a_cache_that_cannot_be_written(hub: Hub, cache: Path) -> None:
    cache.write_text("a file")
    error = fault()
    assert type(error) is ArtifactError and "HF_HOME" in error.remedy


# Offline


def test_fetch__offline_says_so_and_needs_no_network_for_what_is_whole(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    done = fetch(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert fetch(done.name).num_fetched == 0
    (done.folder / "model.safetensors").unlink()
    for name in (NAME, done.name):
        error = fault(name)
        assert type(error) is HubOffline and "HF_HUB_OFFLINE=0" in error.remedy
    assert not hub.requests


def test_load__never_asks_the_network(hub: Hub) -> None:
    with raises(HubNotCached, code="hub-not-cached") as caught:
        backbones.load(NAME)
    assert f"make hub MODEL={NAME}" in caught.value.remedy
    fetch(NAME)
    hub.requests.clear()
    model = backbones.load(NAME)
    backbones.weights_sha256(NAME)
    assert model.spec.name == f"{NAME}@{COMMIT}" and not hub.requests


def test_stage__sets_offline_whatever_the_environment_says() -> None:
    code = "import pipelines.stage; from huggingface_hub import constants; print(constants.HF_HUB_OFFLINE)"
    said = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HF_HUB_OFFLINE": "0"}, cwd=ROOT, capture_output=True, text=True,
        check=True,
    )
    assert said.stdout.strip() == "True"


@pytest.mark.parametrize("stage", ["train", "select", "export", "evaluate"])
def test_stages__that_load_the_backbone_pin_it(stage: str) -> None:
    source = (ROOT / "pipelines" / f"{stage}.py").read_text()
    assert source.count("params.backbone.name") == source.count("pinned(params.backbone.name)") == 1


# Other kinds


@pytest.mark.parametrize(("files", "about", "words"), [
    ({"model_index.json": b"{}"}, {"library_name": "diffusers", "pipeline_tag": "text-to-image"}, "diffusers"),
    ({"llama.gguf": b""}, {}, "GGUF"),
    ({"adapter_config.json": b"{}", "adapter_model.safetensors": b""}, {}, "adapter"),
    ({"modules.json": b"[]"}, {"library_name": "sentence-transformers"}, "sentence-transformers"),
    ({}, {}, "empty"),
    ({"notes.md": b"hello", "data.csv": b"1"}, {}, "2 files: .csv, .md"),
    ({"config.json": b"{}", "tf_model.h5": b""}, {}, "without weights"),
    ({"config.json": b"{}", "model.safetensors": b""}, {}, "without a tokenizer"),
])
def test_fetch__a_listing_of_another_kind(hub: Hub, files: dict[str, bytes], about: dict[str, str], words: str) -> None:
    hub.repositories[NAME] = Repository(files, **about)  # type: ignore[arg-type]
    error = fault()
    assert type(error) is HubWrongKind and words in error.message and "wanted a backbone" in error.message
    assert not fetched_files(hub)


@pytest.mark.parametrize(("config", "words"), [
    ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "a language model for text"),
    ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "texts alone"),
    ({"model_type": "clip_text_model", "architectures": ["CLIPTextModelWithProjection"]}, "text tower alone"),
    ({"model_type": "vit", "architectures": ["ViTForImageClassification"]}, "classifier of pictures"),
    ({"model_type": "own", "architectures": ["Own"], "auto_map": {"AutoModel": "run.Own"}}, "code of its own"),
    ({"hidden": 3}, "wanted"),
    ([], "config.json is none"),
])
def test_fetch__a_config_of_another_kind_costs_no_weights(hub: Hub, config: Any, words: str) -> None:
    hub.repositories[NAME].files["config.json"] = json.dumps(config).encode()
    error = fault()
    assert type(error) is HubWrongKind and words in error.message
    assert "siglip" in error.message or config == []
    assert fetched_files(hub) == {"config.json"}


@pytest.mark.parametrize(("kind", "words"), [("datasets", "a data set"), ("spaces", "a space")])
def test_fetch__a_name_of_another_kind_of_repository(hub: Hub, kind: str, words: str) -> None:
    hub.repositories["someone/other"] = Repository({}, kind=kind)
    error = fault("someone/other")
    assert type(error) is HubWrongKind and words in error.message


def test_fetch__an_index_that_names_what_is_not_there(hub: Hub) -> None:
    files = hub.repositories[NAME].files
    del files["model.safetensors"]
    for content in (b"[]", b'{"weight_map": {"a": "../x"}}', b'{"weight_map": {"a": "model-1.safetensors"}}'):
        files["model.safetensors.index.json"] = content
        hub.repositories[NAME].commit = blob_id(content)
        assert type(fault()) is HubWrongKind


# Names


@pytest.mark.parametrize(("text", "name"), [
    ("openai/clip-vit-base-patch32", HubName("openai/clip-vit-base-patch32")),
    ("a/b@v1.0", HubName("a/b", "v1.0")),
    ("a/b@refs/pr/12", HubName("a/b", "refs/pr/12")),
    ("https://huggingface.co/a/b", HubName("a/b")),
    ("https://huggingface.co/a/b/", HubName("a/b")),
    ("https://huggingface.co/a/b/tree/main", HubName("a/b", "main")),
    ("https://huggingface.co/a/b?library=transformers", HubName("a/b")),
    ("hf://a/b@v2", HubName("a/b", "v2")),
    (" a/b ", HubName("a/b")),
])
def test_asked__is_a_name_or_the_address_of_a_page(text: str, name: HubName) -> None:
    assert HubName.asked(text) == name


@pytest.mark.parametrize("text", [
    "", "a", "a/b/c", "../b", "a/../b", "a/b@", "a/b@../../x", "a/b@/etc", "a/b@x//y", "/a/b", "a--b/c", "a/b@.hidden",
    "a b/c", "a/b c", "vidseek",
])
def test_asked__refuses_what_is_no_name(text: str) -> None:
    assert HubName.parse(text) is None
    with raises(HubNameError, code="hub-name"):
        HubName.asked(text)


@given(st.text(max_size=40) | st.from_regex(r"[\w./@-]{1,30}", fullmatch=True))
def test_parse__a_revision_never_leaves_its_folder(text: str) -> None:
    name = HubName.parse(text)
    if name is not None:
        assert str(name) == text
        joined = os.path.normpath(f"/cache/refs/{name.branch}")
        assert joined.startswith("/cache/refs/") and ".." not in name.repository


def test_asked__a_data_set_s_page_is_no_model() -> None:
    with raises(HubWrongKind, code="hub-wrong-kind", naming="data set"):
        HubName.asked("https://huggingface.co/datasets/a/b")


# Every exception of the client


def _made(kind: type[BaseException]) -> BaseException:
    """One of `kind`, with what its constructor wants."""
    request = httpx2.Request("GET", "http://hub/a/b")
    wants = inspect.signature(kind.__init__).parameters
    usual = {"response": httpx2.Response(500, request=request), "request": request}
    given = {name: usual[name] for name in usual if name in wants}
    result = SimpleNamespace(stderr="said", timed_out=False, signal=None, exit_code=3)
    for arguments in (("said",), ("said", "other"), ("said", result), ()):
        try:
            return kind(*arguments, **given)
        except (TypeError, AttributeError):
            continue
    raise AssertionError(f"{kind} is made in another way")


def _kinds() -> list[type[BaseException]]:
    found = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, Exception)]
    found += [kind for kind in vars(httpx2).values() if inspect.isclass(kind) and issubclass(kind, Exception)]
    return sorted(set(found), key=lambda kind: kind.__qualname__)


@pytest.mark.parametrize("kind", _kinds(), ids=lambda kind: kind.__qualname__)
def test_fault_of__every_exception_of_the_client_is_one_of_ours(kind: type[BaseException]) -> None:
    fault = fault_of(_made(kind), "a/b")
    assert fault.exit_code > 10 and "a/b" in fault.message and fault.remedy
    assert fault.code.startswith("hub-")


@pytest.mark.parametrize(("error", "kind"), [
    (OSError(errno.ENOSPC, "No space left on device", "/cache/x"), ArtifactError),
    (PermissionError(errno.EACCES, "Permission denied", "/cache/x"), ArtifactError),
    (OSError("Consistency check failed: file should be of size 3 but has size 2"), HubCutOff),
    (ConnectionResetError(104, "Connection reset by peer"), HubCutOff),
    (errors.LocalEntryNotFoundError("not here"), HubUnreachable),
    (httpx2.ReadTimeout("too slow"), HubUnreachable),
    (httpx2.ReadError("reset"), HubCutOff),
    (httpx2.RemoteProtocolError("peer closed connection without sending complete message body"), HubCutOff),
    (httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"), HubAddressError),
    (httpx2.ProxyError("407 Proxy Authentication Required"), HubAddressError),
    (errors.OfflineModeIsEnabled("offline"), HubOffline),
    (json.JSONDecodeError("Expecting value", "", 0), HubFailed),
])
def test_fault_of__by_what_the_reader_can_do(error: BaseException, kind: type[VidseekError]) -> None:
    assert type(fault_of(error, "a/b")) is kind


def test_fault_of__the_client_s_wrapper_is_opened() -> None:
    wrapped = errors.LocalEntryNotFoundError("not in the cache, check your connection")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert type(fault_of(wrapped, "a/b")) is ArtifactError
    wrapped.__cause__ = httpx2.ReadTimeout("too slow")
    assert type(fault_of(wrapped, "a/b")) is HubUnreachable


# The command


def fetch_in_process(hub: Hub, cache: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_command(("backbone", "fetch", *arguments), folder=cache, env={
        **os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache / "hub"), "HF_TOKEN": "",
        "VIDSEEK_HOME": str(cache), **environment,
    })


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDSEEK_HOME", str(tmp_path))
    return tmp_path / "params.yaml"


def fetch_by_command(*arguments: str) -> Any:
    said = CliRunner().invoke(app, ["backbone", "fetch", *arguments])
    assert said.exit_code == 0, said.output
    return said


def test_command__pins_the_name_in_params(hub: Hub, archive: Path) -> None:
    text = "cut: {{}}\nbackbone:   # the model\n  # begin here\n  name: {}     # or a folder\n\ntrain:\n  a: 1\n"
    archive.write_text(text.format(NAME))
    said = fetch_by_command(NAME)
    assert f"{NAME}@{COMMIT}" in said.stdout and "dvc repro" in said.stdout
    assert archive.read_text() == text.format(f"{NAME}@{COMMIT}")
    fetch_by_command(NAME)
    assert archive.read_text() == text.format(f"{NAME}@{COMMIT}")


def test_command__leaves_another_backbone_in_params_unless_told(hub: Hub, archive: Path) -> None:
    archive.write_text("backbone:\n  name: vidseek/viclip-tiny\n")
    assert f"name: {NAME}@{COMMIT}" in fetch_by_command(NAME).stdout
    assert archive.read_text() == "backbone:\n  name: vidseek/viclip-tiny\n"
    told = json.loads(fetch_by_command(NAME, "--use", "--json").stdout)
    assert archive.read_text() == f"backbone:\n  name: {NAME}@{COMMIT}\n"
    assert told["is_in_params"] and told["num_fetched"] == 0 and told["name"] == f"{NAME}@{COMMIT}"


@pytest.mark.parametrize("text", [
    "backbone: {{name: {}}}\n", "cut: 1\n", "backbone:\n", "backbone:\n  other: 3\n", "backbone:\n  name: &it {}\n", "- 1\n",
])
def test_pin_backbone__what_is_written_in_another_way_is_left_alone(tmp_path: Path, text: str) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(text.format(NAME))
    assert not pin_backbone(params, f"{NAME}@{COMMIT}", replace_other=True).is_named or "&" in text
    assert "&" in text or params.read_text() == text.format(NAME)


@given(
    value=st.sampled_from([NAME, f"'{NAME}'", f'"{NAME}@main"', f"{NAME}@{'f' * 40}"]),
    comment=st.sampled_from(["", "  # 'x': y"]),
    before=st.sampled_from(["", "a: 1\n", "# backbone:\n", "x:\n  name: other\n"]), indent=st.sampled_from(["  ", "    "]),
    after=st.sampled_from(["", "\n", "train: {}\n", "\n# end\n"]), end=st.sampled_from(["\n", ""]),
)
def test_pin_backbone__changes_one_value_alone(
    tmp_path_factory: pytest.TempPathFactory, value: str, comment: str, before: str, indent: str, after: str, end: str
) -> None:
    params = tmp_path_factory.getbasetemp() / "pinned.yaml"
    text = f"{before}backbone:\n{indent}name: {value}{comment}{end}{after if end else ''}"
    params.write_text(text)
    assert pin_backbone(params, f"{NAME}@{COMMIT}", replace_other=False).is_named
    assert params.read_text().rstrip() == text.replace(value, f"{NAME}@{COMMIT}").rstrip()


def test_command__a_fault_is_one_message_and_its_exit_code(hub: Hub, tmp_path: Path) -> None:
    said = fetch_in_process(hub, tmp_path, "someone/nothing")
    assert said.returncode == HubNotFound.exit_code and "Traceback" not in said.stderr and not said.stdout
