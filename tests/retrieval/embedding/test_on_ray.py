from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.raising import raises
from tests.retrieval.embedding.test_embed_clips import parts_of, write_frames, write_shard
from tests.tiny_bundle import COLOURS, clip_of, write_tiny_bundle
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, ConfigError, ServiceError
from vidseek_retrieval.embedding import on_ray
from vidseek_retrieval.embedding.embed_clips import Executor, embed_archive
from vidseek_retrieval.embedding.embedding_parts import read_parts
from vidseek_retrieval.embedding.on_ray import executor_on_ray
from vidseek_retrieval.settings import RaySettings

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="ray is not installed: pip install -c constraints.txt -e '.[ray]'"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray of two CPUs for all tests: each start takes seconds."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    write_tiny_bundle(tmp_path / "bundle")
    return Encoder.load(tmp_path / "bundle", threads=1, towers=["video"])


def on_two(bundle: Path) -> Executor:
    return executor_on_ray(bundle, variant="fp32", settings=RaySettings(actors=2))


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_embed__on_ray_makes_the_parts_of_one_machine_and_resumes(tmp_path: Path, encoder: Encoder) -> None:
    clip_ids = write_frames(tmp_path / "frames")
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "local", batch=2)
    names_alone = Encoder.load(tmp_path / "bundle", threads=1, towers=["text"])

    def embed() -> tuple[int, int]:
        report = embed_archive(
            tmp_path / "frames", names_alone, out=tmp_path / "ray", batch=2, executor=on_two(tmp_path / "bundle")
        )
        return report.num_embedded, report.num_clips

    assert embed() == (3, 9)
    local, ours = parts_of(tmp_path / "local"), parts_of(tmp_path / "ray")
    assert list(ours) == list(local)
    found = read_parts(tmp_path / "ray" / "parts")
    assert found.clip_ids == sorted(clip_ids)
    np.testing.assert_allclose(found.vectors, read_parts(tmp_path / "local" / "parts").vectors, atol=1e-5)
    for file in ("embeddings.json", *(f"parts/{name}" for name in local)):  # and, one thread each, not a bit differs
        assert (tmp_path / "ray" / file).read_bytes() == (tmp_path / "local" / file).read_bytes()
    assert embed() == (0, 9)
    for part in (tmp_path / "ray" / "parts").iterdir():
        part.unlink()
    assert embed() == (3, 9) and parts_of(tmp_path / "ray") == ours


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_embed__an_actor_that_is_killed_begins_its_part_again(tmp_path: Path, encoder: Encoder) -> None:
    for number in range(6):
        clips = [clip_of(COLOURS["red"], height=200, width=200)] * 60
        write_shard(tmp_path / "frames" / "shards" / f"{number}.tar", {f"{number}" * 32: clips})
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "local", batch=2)
    killed: list[int] = []

    def kill_one() -> None:
        until = time.monotonic() + 60
        while not killed and time.monotonic() < until:
            for child in psutil.Process().children(recursive=True):
                try:
                    if "Embedder.embed" in " ".join(child.cmdline()):
                        os.kill(child.pid, signal.SIGKILL)
                        killed.append(child.pid)
                        return
                except (psutil.NoSuchProcess, ProcessLookupError):
                    continue
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "ray", batch=2, executor=on_two(tmp_path / "bundle"))
    killer.join()
    assert killed
    assert parts_of(tmp_path / "ray") == parts_of(tmp_path / "local")


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_embed__on_ray_tells_errors_as_they_are(tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    write_frames(tmp_path / "frames")
    out = tmp_path / "ray"
    greedy = executor_on_ray(tmp_path / "bundle", variant="fp32", settings=RaySettings(actors=2, cpus_per_actor=2))
    with raises(ConfigError, code="ray-too-small", naming=("2 actors", "1 fit")):
        embed_archive(tmp_path / "frames", encoder, out=out, executor=greedy)
    with raises(ArtifactError, code="not-shared-disk", naming="elsewhere", remedy="Share"):
        embed_archive(tmp_path / "frames", encoder, out=out, executor=on_two(tmp_path / "elsewhere"))
    with monkeypatch.context() as patch:  # written by an actor on a disk that is not ours
        patch.setattr(on_ray, "is_whole", lambda _: False)
        patch.setattr(on_ray, "VISIBLE_SECONDS", 0.0)
        with raises(ArtifactError, code="not-shared-disk", remedy="Share"):
            embed_archive(tmp_path / "frames", encoder, out=out, executor=on_two(tmp_path / "bundle"))
    shutil.rmtree(out)  # the actors' parts are there, of a disk that is ours after all
    shard = tmp_path / "frames" / "shards" / "b.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    with raises(ArtifactError, code="broken-shard", naming="b.tar"):
        embed_archive(tmp_path / "frames", encoder, out=out, executor=on_two(tmp_path / "bundle"))
    assert not (out / "embeddings.json").exists()


@needs_ray
def test_embed__a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with raises(ServiceError, code="ray-no-answer", naming=(address, "RAY_ADDRESS")), on_ray._connected():
        pass


def test_executor__ray_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda _: None)
    with raises(ConfigError, code="not-installed", naming="embed.executor", remedy="[ray]"):
        on_two(tmp_path)


@pytest.mark.parametrize("wrong", [{"actors": 0}, {"cpus_per_actor": 0}, {"gpus_per_actor": 2}])
def test_settings__out_of_range(wrong: dict[str, int]) -> None:
    with raises(ConfigError, code=("setting-out-of-range", "unknown-choice"), remedy="embed.ray", naming=next(iter(wrong))):
        RaySettings(**wrong)
