"""From file to JPEG shard: clips a second, ours against decoding every frame, decord in a loop, and OpenCV's seeking."""

from __future__ import annotations

import argparse
import functools
import io
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import decord
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseek_media.decoding.frames import bin_centres
from vidseek_media.decoding.packets import read_plan
from vidseek_media.frame_store.members import VideoJob, encode_jpeg, write_part
from vidseek_media.records import Clip
from vidseek_media.settings import FrameSettings

FPS, SECONDS, WIDTH, HEIGHT = 25, 30, 640, 360
NUM_FRAMES, SIDE_PX, QUALITY = 8, 224, 95
GOPS = (12, 250)
NUM_FILES, TURNS = 1, 3
LONG_HOURS = 3

Frame = NDArray[np.uint8]


def make_video(path: Path, *, gop: int, seed: int, seconds: float = SECONDS) -> Path:
    """H.264 with B-frames: a coarse pattern and a fine one that drift over each other, about 4 Mbit a second."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(30, 226, (15, 27, 3)), np.ones((32, 32, 1))).astype(np.float32)
    fine = rng.normal(0, 18, (HEIGHT + 120, WIDTH + 220, 1)).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        stream.options = {"preset": "veryfast", "crf": "23", "g": str(gop), "sc_threshold": "0"}
        for number in range(int(seconds * FPS)):
            y, x = (int(60 + 59 * np.sin(number / 40)), int(100 + 99 * np.cos(number / 55)))
            pixels = coarse[y : y + HEIGHT, x : x + WIDTH] + fine[120 - y :, 220 - x :][:HEIGHT, :WIDTH]
            frame = av.VideoFrame.from_ndarray(np.clip(pixels, 0, 255).astype(np.uint8), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def ours(path: Path, out: Path) -> None:
    """The frame worker itself."""
    duration_ms = read_plan(path).duration_ms  # Ingest has it from its probe; here it is paid for.
    video_id = f"{path.stem:0>32}"
    job = VideoJob(video_id, path, (Clip(video_id, 0, 0, duration_ms, ("windows",)),), out)
    write_part(job, settings=FrameSettings(num_frames=NUM_FRAMES, side_px=SIDE_PX, quality=QUALITY, decoder="pyav"))


def every_frame(path: Path, out: Path) -> None:
    """(a) PyAV decodes every frame, and the wanted ones are kept."""
    wanted = _wanted_numbers()
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        frames = [np.asarray(f.to_ndarray(format="rgb24"), np.uint8)
                  for n, f in enumerate(container.decode(video=0)) if n in wanted]
    _write(frames, out)


def decord_loop(path: Path, out: Path) -> None:
    """(b) decord alone."""
    reader = decord.VideoReader(str(path), num_threads=1)
    _write([reader[number].asnumpy() for number in sorted(_wanted_numbers())], out)


def opencv_seek(path: Path, out: Path) -> None:
    """(c) OpenCV, a seek by number for each frame."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    frames = []
    for number in sorted(_wanted_numbers()):
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        frames.append(np.ascontiguousarray(capture.read()[1][:, :, ::-1], np.uint8))
    capture.release()
    _write(frames, out)


METHODS: dict[str, Callable[[Path, Path], None]] = {
    "ours": ours, "every_frame": every_frame, "decord": decord_loop, "opencv": opencv_seek,
}


def _wanted_numbers() -> set[int]:
    return {time_ms * FPS // 1000 for time_ms in bin_centres(0, SECONDS * 1000, NUM_FRAMES)}


def _write(frames: Sequence[Frame], out: Path) -> None:
    """As small as ours, and as JPEG; a plain file stands for the tar."""
    buffer = io.BytesIO()
    for frame in frames:
        size = (round(frame.shape[1] * SIDE_PX / frame.shape[0]), SIDE_PX)
        small = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
        buffer.write(encode_jpeg(small, quality=QUALITY))
    out.write_bytes(buffer.getvalue())


def check_frames(path: Path, folder: Path) -> None:
    """All methods must bring the same frames, else their times mean nothing."""
    plan = read_plan(path)
    starts = [plan.ms_of(plan.pts[n]) for n in sorted(_wanted_numbers())]
    ours(path, folder / "check")
    import tarfile

    with tarfile.open(folder / "check", "r:", ignore_zeros=True) as tar:
        members = tar.getmembers()
        about = json.loads(tar.extractfile(members[0]).read())  # type: ignore[union-attr]
        pictures = [np.asarray(Image.open(io.BytesIO(tar.extractfile(m).read()))) for m in members[1:]]  # type: ignore[union-attr]
    assert about["times_ms"] == starts, (about["times_ms"], starts)
    for name in ("every_frame", "decord", "opencv"):
        METHODS[name](path, folder / "check")
        content = (folder / "check").read_bytes()
        at = [i for i in range(len(content) - 2) if content[i : i + 3] == b"\xff\xd8\xff"]
        for picture, start in zip(pictures, at, strict=True):
            other = np.asarray(Image.open(io.BytesIO(content[start:])))
            assert np.abs(other.astype(int) - picture).mean() < 4, name


def cpu_seconds(name: str, paths: Sequence[Path], out: Path) -> float:
    """Of one thread, for all of `paths`."""
    start = time.process_time()
    for path in paths:
        METHODS[name](path, out)
    return time.process_time() - start


def _work(name: str, path: Path) -> None:
    METHODS[name](path, path.with_name(f"{path.stem}-{multiprocessing.current_process().pid}.part"))


def wall_seconds(name: str, paths: Sequence[Path], workers: int) -> float:
    """Of so many processes of one thread, for each of `paths` four times; starting them is not counted."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(functools.partial(_work, name), [paths[0]] * workers, chunksize=1)
        start = time.monotonic()
        pool.map(functools.partial(_work, name), [*paths] * 4, chunksize=1)
        return time.monotonic() - start


def _peak_mib(path: Path, hours: float) -> float:
    """Of a fresh process that reads the plan and 8 frames of `path`."""
    duration_ms = int(hours * 3_600_000) - 1000
    video_id = "0" * 32
    job = VideoJob(video_id, path, (Clip(video_id, 0, 0, duration_ms, ("windows",)),), path.with_suffix(".part"))
    write_part(job, settings=FrameSettings(num_frames=NUM_FRAMES, side_px=SIDE_PX, quality=QUALITY, decoder="pyav"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def repeat_packets(source: Path, path: Path, times: int) -> Path:
    """The packets of `source` over and over, with times that go on: hours of video in seconds."""
    with av.open(str(source)) as before, av.open(str(path), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        # Each of a video that was encoded here has its times.
        packets: list[Any] = [
            (bytes(p), p.pts, p.dts, p.duration, p.is_keyframe) for p in before.demux(video=0) if p.size
        ]
        time_base: Any = before.streams.video[0].time_base
        length = sum(p[3] for p in packets)
        for turn in range(times):
            for content, pts, dts, duration, is_keyframe in packets:
                packet = av.Packet(content)
                packet.pts, packet.dts, packet.duration = pts + turn * length, dts + turn * length, duration
                packet.time_base, packet.is_keyframe, packet.stream = time_base, is_keyframe, stream
                after.mux(packet)
    return path


def main() -> None:
    """Make the videos, check, measure in turn, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench/media.json"))
    parser.add_argument("--no-wall", action="store_true", help="CPU time alone: for a machine with other work.")
    args = parser.parse_args()
    report: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for gop in GOPS:
            paths = [make_video(folder / f"{gop}{seed}.mp4", gop=gop, seed=seed) for seed in range(NUM_FILES)]
            check_frames(paths[0], folder)
            cpu: dict[str, list[float]] = {name: [] for name in METHODS}
            for _ in range(TURNS):
                for name in METHODS:
                    cpu[name].append(cpu_seconds(name, paths, folder / "out"))
            best = {name: min(times) for name, times in cpu.items()}
            found: dict[str, object] = {
                "clips_per_cpu_second": {name: round(NUM_FILES / seconds, 2) for name, seconds in best.items()},
                "times_every_frame": round(best["every_frame"] / best["ours"], 2),
                "times_best_of_decord_and_opencv": round(min(best["decord"], best["opencv"]) / best["ours"], 2),
            }
            if not args.no_wall:
                walls = {name: {n: wall_seconds(name, paths, n) for n in (1, 2)} for name in METHODS}
                found["clips_per_second"] = {
                    name: {n: round(4 * NUM_FILES / s, 2) for n, s in each.items()} for name, each in walls.items()
                }
                found["two_workers_times_one"] = round(walls["ours"][1] / walls["ours"][2], 2)
            report[f"gop_{gop}"] = found
        short = make_video(folder / "short.mp4", gop=12, seed=0, seconds=10)
        long = repeat_packets(short, folder / "long.mkv", LONG_HOURS * 360)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            report["peak_mib"] = {
                "10 s": round(pool.apply(_peak_mib, (short, 10 / 3600))),
                f"{LONG_HOURS} h": round(pool.apply(_peak_mib, (long, LONG_HOURS))),
            }
    args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))  # noqa: T201 - this is the command's answer


if __name__ == "__main__":
    main()
