"""A disk that takes no more, at a random byte of each stage: one clear error, nothing half-written, and a new run goes on.

The limit is RLIMIT_FSIZE, which fails a write as a full disk does, and works on every machine; `VIDSEEK_FULL_DISKS` says
how many random bytes are tried for each stage. Where a file system may be mounted, a real one of some kilobytes is filled.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.media.conftest import write_video
from vidseek_media.cutting.cut import ShotSearch, cut_archive
from vidseek_media.errors import VidseekError
from vidseek_media.frame_store.shards import write_frames
from vidseek_media.settings import CutSettings, FrameSettings, ShotSettings
from vidseek_media.sources.ingest import ingest
from vidseek_training.captioning.captions import write_captions
from vidseek_training.dataset.pairs import make_pairs
from vidseek_training.settings import CaptionSettings, PairSettings

ROOT = Path(__file__).resolve().parents[2]
NUM_LIMITS = int(os.environ.get("VIDSEEK_FULL_DISKS", "4"))
STAGES = ("ingest", "cut", "frames", "caption", "pairs")
MEMORIES = {"ingest": "ledger", "cut": "shots"}
CACHES = (".parts",)
"""What an interrupted `frames` keeps to go on from."""


def run_stage(name: str, source: Path, work: Path) -> None:
    """One stage of a small archive in `work`."""
    folder = {stage: work / stage for stage in STAGES}
    if name == "ingest":
        ingest(source, out=folder["ingest"], ledger=work / "state" / "ledger" / "ingest.json", timeout_seconds=60, workers=1)
    elif name == "cut":
        settings = CutSettings(
            modes=("captions", "windows", "shots"), window_length_seconds=1.0, window_stride_seconds=1.0,
            shots=ShotSettings(min_seconds=1.0, workers=1),
        )
        search = ShotSearch(source, work / "state" / "shots")
        cut_archive(folder["ingest"], out=folder["cut"], settings=settings, search=search)
    elif name == "frames":
        write_frames(
            source, folder["ingest"], folder["cut"], out=folder["frames"],
            settings=FrameSettings(num_frames=3, side_px=48, quality=90, shard_mib=1, workers=1, timeout_seconds=60),
        )
    elif name == "caption":
        write_captions(folder["ingest"], folder["cut"], out=folder["caption"], settings=CaptionSettings())
    else:
        make_pairs(
            folder["ingest"], folder["caption"], folder["frames"], out=folder["pairs"],
            memory=work / "state" / "pairs",
            settings=PairSettings(validation_share=0.2, test_share=0.2, seed=0, near_duplicate_bits=None),
        )


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part in CACHES for part in path.relative_to(folder).parts)
    }


def fill(name: str, source: Path, work: Path, limit: int) -> dict[str, object]:
    """Run the stage where no file may be longer than `limit` bytes; what became of it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        run_stage(name, source, work)
        error: Exception | None = None
    except (VidseekError, OSError) as raised:
        error = raised
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return {"limit": limit, "error": None if error is None else f"{type(error).__name__}: {error}"}


def try_stage(name: str, source: Path, work: Path) -> list[dict[str, object]]:
    """Run the stage whole, then against limits at random bytes, on nothing and on what an earlier run left."""
    run_stage(name, source, work)
    whole = {part: files_of(work / part) for part in (name, "state")}
    longest = max(len(content) for files in whole.values() for content in files.values())
    chance = random.Random(f"full disk {name}")
    found = []
    for number in range(NUM_LIMITS):
        is_fresh = number % 4 != 3
        if is_fresh:
            shutil.rmtree(work / name)
            if name in MEMORIES:
                shutil.rmtree(work / "state" / MEMORIES[name])
        outcome = fill(name, source, work, chance.randrange(1, longest))
        left = {part: files_of(work / part) for part in (name, "state")}
        run_stage(name, source, work)
        found.append({
            "stage": name, "is_fresh": is_fresh, **outcome,
            "odd": [path for part in left for path in left[part] if left[part][path] != whole[part].get(path)],
            "lost": [] if is_fresh else [path for path in whole[name] if path not in left[name]],
            "same_after": {part: files_of(work / part) for part in (name, "state")} == whole,
        })
    return found


def make_source(folder: Path) -> Path:
    """Five videos with captions."""
    for number in range(5):
        write_video(folder / f"{number}.mp4", num_frames=20 + 5 * number, width=64, height=48)
    rows = "".join(f"{n}.mp4,a grey wall number {n} {i},{i},{i + 1}\n" for n in range(5) for i in range(2))
    (folder / "captions.csv").write_text(f"file,caption,start,end\n{rows}")
    return folder


def fill_disk(name: str, source: Path, work: Path, pages: int) -> dict[str, object]:
    """Run the stage where its folder is a file system of so many pages, then on one with room; needs the right to mount."""
    shutil.rmtree(work / name, ignore_errors=True)
    (work / name).mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={pages * resource.getpagesize()}", "tmpfs", str(work / name)]
    subprocess.run(mount, check=True)
    try:
        run_stage(name, source, work)
        error = ""
    except (VidseekError, OSError) as raised:
        error = f"{type(raised).__name__}: {raised}"
    left = files_of(work / name)
    try:
        subprocess.run(["mount", "-o", "remount,size=64m", str(work / name)], check=True)
        run_stage(name, source, work)
        return {"stage": name, "pages": pages, "error": error, "left": sorted(left), "same_after": digest(work / name)}
    finally:
        subprocess.run(["umount", str(work / name)], check=True)


def digest(folder: Path) -> str:
    return hashlib.sha256(repr(files_of(folder)).encode()).hexdigest()


def main_of_disks(folder: str) -> None:
    """The child's part, in a mount namespace of its own."""
    source, work = make_source(Path(folder) / "source"), Path(folder) / "work"
    found = []
    for name in STAGES:
        run_stage(name, source, work)
        whole, wanted = sorted(files_of(work / name)), digest(work / name)
        for pages in (1, 2):
            one = fill_disk(name, source, work, pages)
            one |= {"same_after": one["same_after"] == wanted, "odd": sorted(set(map(str, one["left"])) - set(whole))}
            found.append(one)
        run_stage(name, source, work)
    print(json.dumps(found))  # noqa: T201 - the answer to the parent


def main(folder: str) -> None:
    """The child's part: its limits must not be those of the tests."""
    source = make_source(Path(folder) / "source")
    print(json.dumps([one for name in STAGES for one in try_stage(name, source, Path(folder) / "work")]))  # noqa: T201


def run_apart(call: str, *, before: tuple[str, ...] = ()) -> list[dict[str, object]]:
    """What `call`, one of the functions above, prints in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'packages'}{os.pathsep}{ROOT}"}
    code = (
        "from tests.pipelines import test_full_disk\nfrom tests.shared_servers import sharing_servers\n"
        f"with sharing_servers():\n    test_full_disk.{call}"
    )
    done = subprocess.run(
        [*before, sys.executable, "-c", code],
        capture_output=True, text=True, check=False, env=environment, timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_a_file_that_cannot_grow__is_one_clear_error_and_a_new_run_goes_on(tmp_path: Path) -> None:
    found = run_apart(f"main({str(tmp_path)!r})")
    assert {one["stage"] for one in found} == set(STAGES)
    for one in found:
        assert not one["odd"] and not one["lost"] and one["same_after"], one
        assert one["error"] is None or "File too large" in str(one["error"]), one
        assert one["error"] or not one["is_fresh"], one


@pytest.mark.slow
def test_a_full_disk__is_one_clear_error_and_a_new_run_goes_on(tmp_path: Path) -> None:
    apart = ("unshare", "--mount", "--map-root-user") if os.geteuid() else ("unshare", "--mount")
    try:
        subprocess.run([*apart, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system may be mounted here")
    found = run_apart(f"main_of_disks({str(tmp_path)!r})", before=apart)
    assert {one["stage"] for one in found} == set(STAGES)
    for one in found:
        assert not one["odd"] and one["same_after"], one
        assert not one["error"] or "No space left" in str(one["error"]), one
    assert {one["stage"] for one in found if one["error"]} == set(STAGES)
