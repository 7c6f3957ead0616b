"""A run that is killed in the middle of its requests, and run again: what was answered is not asked for twice."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.media.speech.sounds import spoken, write_sound
from vidseek_media.sources.ingest import ingest
from vidseek_media.speech.sound import RATE
from vidseek_media.text.segments import read_segments

RUN = """
import sys
from pathlib import Path
from vidseek_media.settings import SpeechSettings
from vidseek_media.speech.transcribing import transcribe_archive
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    settings = SpeechSettings.of({"enabled": True, "engine": "openai", "model": "m", "usd_per_minute": 1.0, "workers": 1,
                                  "concurrency": 1})
    transcribe_archive(folder / "ingest", out=folder / "out", source=folder / "source", settings=settings,
                       memory=folder / "memory")
"""


@pytest.mark.slow
def test_transcribe_archive__killed_in_the_middle_asks_for_no_answer_twice(tmp_path: Path) -> None:
    line, pause = spoken("The harbour bridge will open next year.", tmp_path), np.zeros((1, 2 * RATE), np.float32)
    parts = [part for number in range(4) for part in (line[:, : -300 * number or None], pause)]  # no two are equal
    write_sound(tmp_path / "source" / "talk.mkv", [np.concatenate(parts, axis=1)])
    ingest(tmp_path / "source", out=tmp_path / "ingest", ledger=tmp_path / "ledger", timeout_seconds=60, workers=1)
    asked: Counter[str] = Counter()
    stalled = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked[hashlib.sha256(body[body.index(b"RIFF") :].rpartition(b"\r\n--")[0]).hexdigest()] += 1
            if len(asked) == 3 and not stalled.is_set():
                stalled.set()
                time.sleep(30)
            answer = json.dumps({"text": f"answer {len(asked)}"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    script = tmp_path / "run.py"
    script.write_text(RUN)
    told = {**os.environ, "VIDSEEK_SPEECH_URL": f"http://127.0.0.1:{server.server_port}/v1",
            "PYTHONPATH": os.pathsep.join(sys.path)}
    first = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=told, start_new_session=True)
    assert stalled.wait(120)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    subprocess.run([sys.executable, str(script), str(tmp_path)], env=told, check=True, timeout=300)
    server.shutdown()
    assert len(asked) == 4 and sorted(asked.values()) == [1, 1, 1, 2]  # the one without an answer alone
    [segments] = read_segments(tmp_path / "out").values()
    assert len(segments) == 4
    spent = [json.loads(row) for row in (tmp_path / "memory" / "spent.jsonl").read_text().splitlines()]
    assert len({row["number"] for row in spent}) == 5  # the request whose answer was never seen stays counted
