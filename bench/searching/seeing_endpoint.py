"""An endpoint of OpenAI's protocol on loopback whose model is an encoder bundle.

It decodes the pictures of a request, embeds them and the words, and answers with the score that is asked for. Nothing else
decides its answer: no id, no rank and no text of a clip reaches it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.encoder import Encoder
from vidseek_media.frame_store.members import decode_jpeg
from vidseek_training.captioning.relevance import HIGHEST, PROMPT

CHARACTERS_PER_TOKEN, TOKENS_PER_PICTURE, TOKENS_OUT = 4, 85, 8
"""What it says that a request took: it counts as a language model would, roughly."""


class Judge(Protocol):
    """Says from 0 to 100 how well pictures show what a query looks for."""

    def score(self, query: str, pictures: Sequence[bytes]) -> int:
        """Return the score.

        Args:
            query: In words.
            pictures: JPEG files of one clip, in order of time.
        """


class SeeingJudge:
    """Compares words and pictures by the cosine of an encoder. Safe to be used by several threads."""

    def __init__(self, encoder: Encoder) -> None:
        """Take the encoder, with both towers; `fix_scale` must follow some questions.

        Args:
            encoder: Sees and reads.
        """
        self._encoder = encoder
        self._clips: dict[bytes, NDArray[np.float32]] = {}
        self._texts: dict[str, NDArray[np.float32]] = {}
        self._seen: list[float] = []
        self._steps: NDArray[np.float64] | None = None

    def score(self, query: str, pictures: Sequence[bytes]) -> int:
        """Implement `Judge.score`: the share of the scale's cosines below that of the query, in hundredths; 0 without a
        scale."""
        cosine = float(self._text(query) @ self._clip(pictures))
        if self._steps is None:
            self._seen.append(cosine)
            return 0
        return int(np.searchsorted(self._steps, cosine))

    def fix_scale(self) -> None:
        """Let the scores be hundredths of the cosines that were asked for so far."""
        self._steps = np.quantile(self._seen, (np.arange(HIGHEST) + 0.5) / HIGHEST)

    def _clip(self, pictures: Sequence[bytes]) -> NDArray[np.float32]:
        key = hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in pictures)).digest()
        if (known := self._clips.get(key)) is None:
            frames = np.stack([decode_jpeg(each) for each in pictures])
            [known] = self._encoder.embed_frames([frames])
            self._clips[key] = known
        return known

    def _text(self, query: str) -> NDArray[np.float32]:
        if (known := self._texts.get(query)) is None:
            [known] = self._encoder.embed_texts([query])
            self._texts[query] = known
        return known


@dataclass(frozen=True)
class RandomJudge:
    """Knows nothing: the same random score for the same request."""

    seed: int

    def score(self, query: str, pictures: Sequence[bytes]) -> int:
        """Implement `Judge.score`."""
        said = hashlib.sha256(f"{self.seed}\0{query}".encode())
        for each in pictures:
            said.update(each)
        return int.from_bytes(said.digest()[:8], "big") % (HIGHEST + 1)


@dataclass
class Endpoint:
    """An endpoint that runs."""

    url: str
    judge: Judge
    num_requests: int = 0
    num_pictures: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to the body of a request.

        Args:
            body: Of a chat completion, as JSON has it.

        Raises:
            ValueError, LookupError, TypeError: it is none that asks for a score.
        """
        text, pictures = _parts_of(body)
        schema = body["response_format"]["json_schema"]["schema"]
        if not pictures or schema["required"] != ["score"]:
            raise ValueError("wanted pictures, and a score as the answer")
        with self._lock:
            self.num_requests += 1
            self.num_pictures += len(pictures)
        content = json.dumps({"score": self.judge.score(query_of(text), pictures)})
        tokens_in = len(text) // CHARACTERS_PER_TOKEN + TOKENS_PER_PICTURE * len(pictures)
        return {
            "id": "chatcmpl-0", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": tokens_in, "completion_tokens": TOKENS_OUT, "total_tokens": tokens_in + TOKENS_OUT,
            },
        }


def query_of(prompt: str) -> str:
    """Return the words that a prompt asks for.

    Raises:
        ValueError: it is no prompt of a second look.
    """
    before, after = PROMPT.split("{query}")
    if not (prompt.startswith(before) and prompt.endswith(after)):
        raise ValueError("another prompt")
    return str(json.loads(prompt[len(before) : len(prompt) - len(after)]))


def _parts_of(body: dict[str, Any]) -> tuple[str, list[bytes]]:
    """Return the text and the JPEG files of a request."""
    [message] = body["messages"]
    texts, pictures = [], []
    for part in message["content"]:
        if part["type"] == "text":
            texts.append(part["text"])
            continue
        head, _, data = part["image_url"]["url"].partition(",")
        if head != "data:image/jpeg;base64":
            raise ValueError(f"a picture is {head[:40]!r}")
        pictures.append(base64.b64decode(data, validate=True))
    return "\n".join(texts), pictures


@contextmanager
def serve(judge: Judge) -> Iterator[Endpoint]:
    """Run an endpoint on a free port of loopback.

    Args:
        judge: Answers.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                status, answer = 200, endpoint.answer(json.loads(content))
            except (ValueError, LookupError, TypeError, OSError, binascii.Error) as error:
                status, answer = 400, {"error": {"message": repr(error), "type": "invalid_request_error"}}
            said = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}", judge)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield endpoint
        finally:
            server.shutdown()
            thread.join()
