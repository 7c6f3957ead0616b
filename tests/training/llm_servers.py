"""Servers on the loopback that speak the protocols of OpenAI and Gemini, and an archive whose clips they are shown."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseek_media.frame_store.members import encode_jpeg
from vidseek_media.ids import clip_id_of, shard_key_of
from vidseek_media.tables import CLIPS, FRAMES, SIDECAR, TRANSCRIPTS, VIDEOS, write_table

KEY = "sk-secret-of-the-tests"
MODEL = "seer-1"
CAPTIONS = {
    "short": "a red box falls", "sentence": "A red box falls from a grey table to the left.",
    "detail": "A red box stands on a grey table. It is pushed and falls to the left.",
}


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as the server saw it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    pictures: tuple[bytes, ...]
    video: bytes | None
    prompt: str


@dataclass(frozen=True)
class Reply:
    """What the server does with a request."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    """Before it answers."""
    drops: bool = False
    """Close the connection without an answer."""


@dataclass
class Server:
    """What a server saw."""

    url: str
    asked: list[ReceivedRequest] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)


Pixels = Callable[[int, int], NDArray[np.uint8]]
"""A frame, RGB, by the numbers of its clip and of the frame in it."""
Script = Callable[[ReceivedRequest, int], Reply]
"""The reply to a request; the number counts the requests from 0."""


class _Server(ThreadingHTTPServer):
    """Lets as many wait to be accepted as tests send at once; by default it is five, and others get no answer."""

    request_queue_size = 256


@contextmanager
def serve(script: Script) -> Iterator[Server]:
    """A server that follows `script`, on a free port."""
    gone = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = _read(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            with server._lock:
                number = len(server.asked)
                server.asked.append(asked)
                server._now += 1
                server.most_at_once = max(server.most_at_once, server._now)
            reply = script(asked, number)
            gone.wait(reply.seconds)
            with server._lock:
                server._now -= 1
            self._send(reply)

        def _send(self, reply: Reply) -> None:
            if reply.drops:
                self.close_connection = True
                return
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                self.close_connection = True  # The client has given up.

        def log_message(self, *_: Any) -> None:
            pass

    http = _Server(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        gone.set()
        http.shutdown()
        http.server_close()
        thread.join()


def _read(path: str, headers: dict[str, str], body: dict[str, Any]) -> ReceivedRequest:
    """The parts of a request of either protocol; an assertion fails where it is of neither."""
    pictures, texts, video = [], [], None
    if "chat/completions" in path:
        for part in body["messages"][0]["content"]:
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                head, _, data = part["image_url"]["url"].partition(",")
                assert head == "data:image/jpeg;base64"
                pictures.append(base64.b64decode(data, validate=True))
    else:
        for part in body["contents"][0]["parts"]:
            if "text" in part:
                texts.append(part["text"])
                continue
            content = base64.urlsafe_b64decode(part["inlineData"]["data"])
            kind = part["inlineData"].get("mimeType") or part["inlineData"]["mime_type"]  # JSON of protocol buffers
            if kind == "video/mp4":
                video = content
            else:
                assert kind == "image/jpeg"
                pictures.append(content)
    for picture in pictures:
        Image.open(io.BytesIO(picture)).verify()
    return ReceivedRequest(path, headers, body, tuple(pictures), video, "\n".join(texts))


def openai_reply(
    text: str | None = None, *, tokens_in: int = 1000, tokens_out: int = 100, finish: str = "stop",
    refusal: str | None = None, seconds: float = 0.0, has_usage: bool = True, model: str = MODEL, thoughts: int = 0,
) -> Reply:
    """As api.openai.com and vLLM answer."""
    message = {"role": "assistant", "content": json.dumps(CAPTIONS) if text is None else text, "refusal": refusal}
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out,
             "completion_tokens_details": {"reasoning_tokens": thoughts}}
    return Reply({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        **({"usage": usage} if has_usage else {}),
    }, seconds=seconds)


def openai_fault(status: int, message: str, *, code: str | None = None, param: str | None = None, **more: Any) -> Reply:
    """As api.openai.com says that it will not."""
    return Reply({"error": {"message": message, "type": "t", "param": param, "code": code}}, status=status, **more)


def gemini_reply(
    text: str | None = None, *, tokens_in: int = 1000, tokens_out: int = 80, thoughts: int = 20, finish: str = "STOP",
    seconds: float = 0.0, model: str = MODEL,
) -> Reply:
    """As generativelanguage.googleapis.com answers."""
    parts = [{"text": "let me see", "thought": True}, {"text": json.dumps(CAPTIONS) if text is None else text}]
    content = {"content": {"role": "model", "parts": parts}} if finish == "STOP" else {}
    return Reply({
        "candidates": [{**content, "finishReason": finish, "index": 0}],
        "usageMetadata": {"promptTokenCount": tokens_in, "candidatesTokenCount": tokens_out,
                          "thoughtsTokenCount": thoughts, "totalTokenCount": tokens_in + tokens_out + thoughts},
        "modelVersion": model,
    }, seconds=seconds)


def gemini_fault(status: int, name: str, message: str, *details: dict[str, Any]) -> Reply:
    """As generativelanguage.googleapis.com says that it will not."""
    return Reply({"error": {"code": status, "message": message, "status": name, "details": list(details)}}, status=status)


def write_archive(
    folder: Path, num_videos: int, *, quality_flags: dict[int, list[str]] | None = None,
    num_frames: int = 4, same: bool = False, still: bool = False,
) -> list[str]:
    """Tables and shards in `folder/data` of videos of one clip of 2 s, each unlike the others (`same`: all alike), its
    frames too (`still`: all alike).

    Gives the clip ids, in order of video.
    """
    data = folder / "data"
    videos = [f"{number:032x}" for number in range(num_videos)]
    write_table(data / "ingest" / "videos.parquet", [{
        "video_id": video_id, "uris": [f"{number}.mp4"], "source_id": "", "duration_ms": 2000, "fps": 10.0, "width": 32,
        "height": 24, "codec": "h264", "title": f"Title {number}", "channel": "", "category": "Tests", "published_at": "",
        "thumbnail": "", "clip_of": "",
    } for number, video_id in enumerate(videos)], VIDEOS)
    write_table(data / "ingest" / "sidecar.parquet", [], SIDECAR)
    write_table(data / "ingest" / "transcripts.parquet", [], TRANSCRIPTS)
    clip_ids = [str(clip_id_of(video_id, 0, 2000)) for video_id in videos]
    write_table(data / "cut" / "clips.parquet", [{
        "clip_id": clip_id, "video_id": video_id, "index": 0, "start_ms": 0, "end_ms": 2000, "cut": ["windows"],
    } for clip_id, video_id in zip(clip_ids, videos, strict=True)], CLIPS)
    write_noise(
        data / "frames", [(clip_id, video_id, 0) for clip_id, video_id in zip(clip_ids, videos, strict=True)],
        quality_flags=quality_flags, num_frames=num_frames, same=same, still=still,
    )
    return clip_ids


def write_noise(
    frames: Path, clips: Sequence[tuple[str, str, int]], *, quality_flags: dict[int, list[str]] | None = None,
    num_frames: int = 4, same: bool = False, still: bool = False, pixels: Pixels | None = None,
) -> None:
    """Frames of clips (id, video, index), as the stage `frames` leaves them: noise, as `write_archive` has it, or what
    `pixels` gives."""
    drawn = pixels or (lambda number, frame: _noise(0 if same else number, 0 if still else frame))
    write_table(frames / "frames.parquet", [{
        "clip_id": clip_id, "video_id": video_id, "key": shard_key_of(video_id, index), "shard": f"shards/{number % 2}.tar",
        "num_frames": num_frames, "num_repeated": 0, "decoder": "pyav",
        "quality_flags": (quality_flags or {}).get(number, []), "hashes": [],
    } for number, (clip_id, video_id, index) in enumerate(clips)], FRAMES)
    for shard in (0, 1):
        own = {number: clip for number, clip in enumerate(clips) if number % 2 == shard}
        _write_shard(frames / "shards" / f"{shard}.tar", own, num_frames, drawn)


def _noise(number: int, frame: int) -> NDArray[np.uint8]:
    return np.random.default_rng([number, frame]).integers(0, 255, (24, 32, 3), np.uint8)


def _write_shard(path: Path, clips: dict[int, tuple[str, str, int]], num_frames: int, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, (clip_id, video_id, index) in clips.items():
            key = shard_key_of(video_id, index)
            about = {"key": key, "clip_id": clip_id, "video_id": video_id, "times_ms": list(range(num_frames))}
            members = {f"{key}.json": json.dumps(about).encode()}
            for i in range(num_frames):
                members[f"{key}.{i:02d}.jpg"] = encode_jpeg(pixels(number, i), quality=80)
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
