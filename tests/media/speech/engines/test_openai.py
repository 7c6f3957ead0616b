from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.raising import raises
from vidseek_media.errors import ConfigError, ServiceError, VidseekError
from vidseek_media.speech.engine import NoAnswer, Utterance
from vidseek_media.speech.engines.openai import KEY_VARIABLE, PUBLIC_KEY, URL_VARIABLE, Endpoint, OpenAiEngine
from vidseek_media.speech.sound import RATE

SOUND = np.zeros(4 * RATE, np.int16)
Answer = tuple[int, object] | Callable[[http.server.BaseHTTPRequestHandler], None]


class Server:
    """Answers each request with the next of `answers`, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None: ...

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((self.path, dict(self.headers.items()), body))
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if callable(answer):
                    answer(self)
                    return
                status, content = answer
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def endpoint(server: Server, *, seconds: float = 5.0, **fields: Any) -> Endpoint:
    return Endpoint(
        server.url, "sk-secret", model="whisper-1", fields=fields, timeout_seconds=seconds, backoff_seconds=0.01
    )


WORDS = [{"word": "hello", "start": 0.5, "end": 0.9}, {"word": "world", "start": 1.0, "end": 1.5}]


def test_transcribe__sends_a_wav_and_reads_words(server: Server) -> None:
    server.answers = [(200, {"text": "hello world", "language": "english", "words": WORDS})]
    said = endpoint(server, temperature=0.2).transcribe(SOUND, language="en-GB")
    assert said == [Utterance(500, 1500, "hello world", "en")]
    [(path, headers, body)] = server.asked
    assert path == "/v1/audio/transcriptions" and headers["Authorization"] == "Bearer sk-secret"
    for part in (b'filename="speech.wav"', b"RIFF", b"WAVEfmt ", b"verbose_json", b"whisper-1",
                 b'name="language"\r\n\r\nen\r\n', b'name="temperature"\r\n\r\n0.2'):
        assert part in body
    assert len(body) > 2 * len(SOUND)


@pytest.mark.parametrize(("answer", "wanted"), [
    ({"text": " hi ", "segments": [{"text": " hi ", "start": 1, "end": 9e9, "avg_logprob": 0.0}]},
     [Utterance(1000, 4000, "hi", "", 1.0)]),
    ({"text": "hi", "words": [], "segments": []}, [Utterance(0, 4000, "hi")]),
    ({"text": "hi", "words": [{"word": "hi", "start": "0", "end": None}], "language": "Klingon"},
     [Utterance(0, 4000, "hi")]),
    ({"text": "hi", "words": [{"word": "hi", "start": -5, "end": -1}, 7]}, [Utterance(0, 4000, "hi")]),
    ({"text": "hi", "words": "none", "segments": 4, "language": 7}, [Utterance(0, 4000, "hi")]),
    ({"text": "  "}, []),
    ({"text": "שלום 世界", "language": "he"}, [Utterance(0, 4000, "שלום 世界", "he")]),
])
def test_transcribe__takes_what_servers_say(server: Server, answer: object, wanted: list[Utterance]) -> None:
    server.answers = [(200, answer)]
    assert endpoint(server).transcribe(SOUND, language=None) == wanted


def test_transcribe__a_server_without_times_is_asked_for_the_text_alone_from_then_on(server: Server) -> None:
    refused = {"error": {"message": "response_format 'verbose_json' is not supported"}}
    server.answers = [(400, refused), (200, {"text": "hi"})]
    client = endpoint(server)
    for _ in range(2):
        assert client.transcribe(SOUND, language="de") == [Utterance(0, 4000, "hi", "de")]
    assert [b"verbose_json" in body for _, _, body in server.asked] == [True, False, False]


@pytest.mark.parametrize("bad", [
    (500, b"oops"), (429, {"error": {"message": "slow down"}}), (200, b"<html>"), (200, {"no": "text"}), (200, {"text": 7}),
    (200, b"[" * 100_000), (200, b"x" * (5 * 2**20)),
])
def test_transcribe__tries_again_what_may_pass(server: Server, bad: Answer) -> None:
    server.answers = [bad, (200, {"text": "hi"})]
    assert endpoint(server).transcribe(SOUND, language=None) == [Utterance(0, 4000, "hi")]
    server.answers, server.asked = [bad], []
    with raises(NoAnswer, naming="4 attempts"):
        endpoint(server).transcribe(SOUND, language=None)
    assert len(server.asked) == 4


def test_transcribe__one_span_that_is_not_taken_is_no_end(server: Server) -> None:
    server.answers = [(413, b"too large")]
    with raises(NoAnswer, naming="413"):
        endpoint(server).transcribe(SOUND, language=None)
    assert len(server.asked) == 1


@pytest.mark.parametrize(("status", "body", "kind", "code"), [
    (401, {"error": "sk-secret is wrong"}, ConfigError, "speech-key-refused"),
    (404, {"error": "no such model"}, ConfigError, "speech-model-unknown"), (307, b"", ConfigError, "speech-model-unknown"),
    (402, b"pay", ServiceError, "speech-no-answer"),
    (429, b'{"code": "insufficient_quota"}', ServiceError, "speech-no-answer"),
])
def test_transcribe__stops_where_no_span_can_be_answered(
    server: Server, status: int, body: object, kind: type[VidseekError], code: str
) -> None:
    server.answers = [(status, body)]
    with raises(kind, code=code, naming=f"HTTP {status}") as caught:
        endpoint(server).transcribe(SOUND, language=None)
    assert "sk-secret" not in str(caught.error) and len(server.asked) == 1


def test_transcribe__a_server_that_drips_or_does_not_answer_is_left_in_time(server: Server) -> None:
    left, num_dripped = threading.Event(), [0]

    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while num_dripped[0] < 1000:
            try:
                handler.wfile.write(b" ")
                handler.wfile.flush()
            except OSError:
                return
            num_dripped[0] += 1
            time.sleep(0.05)

    for answer in (drip, lambda handler: left.wait(120)):
        server.answers = [answer]
        with raises(NoAnswer, naming="0.2 s") as caught:
            endpoint(server, seconds=0.2).transcribe(SOUND, language=None)
        assert num_dripped[0] < 1000 and caught.error.may_be_paid
    left.set()


def test_transcribe__where_nobody_listens_costs_nothing(server: Server) -> None:
    client = endpoint(server)
    server.close()
    with raises(NoAnswer, naming="http://127.0.0.1:") as caught:
        client.transcribe(SOUND, language=None)
    assert not caught.error.may_be_paid


def test_open__asks_for_model_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (URL_VARIABLE, KEY_VARIABLE, PUBLIC_KEY):
        monkeypatch.delenv(name, raising=False)
    engine = OpenAiEngine()
    with raises(ConfigError, code="setting-missing", naming="speech.model"):
        engine.open(model=None, language=None, options={})
    with raises(ConfigError, code="variable-not-set", naming=PUBLIC_KEY):
        engine.open(model="whisper-1", language=None, options={})
    monkeypatch.setenv(URL_VARIABLE, "http://127.0.0.1:9/v1")
    engine.open(model="whisper-1", language=None, options={"timeout_seconds": 3}).close()
    with raises(ConfigError, code="settings-disagree", naming="response_format"):
        engine.open(model="whisper-1", language=None, options={"response_format": "text"})
    with raises(ConfigError, code="setting-out-of-range", naming="timeout_seconds"):
        engine.open(model="whisper-1", language=None, options={"timeout_seconds": "soon"})
