"""The command as a person meets it: exit codes, one message, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from PIL import Image
from typer.core import TyperGroup
from typer.testing import CliRunner

import vidseek.archive
import vidseek.cli
import vidseek.printing
from tests.forking import run_command
from tests.media.conftest import write_video
from tests.raising import raises
from tests.tiny_bundle import write_tiny_bundle
from tests.vidseek.calling import call
from tests.waiting import wait_until
from vidseek.actions.queries import weights_of
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, ConfigError, GateFailed, InputRejected, ServiceError, VidseekError
from vidseek_retrieval.search.query import QueryInputs, SearchOptions

PACKAGES = Path(__file__).parents[2] / "packages"
ANSWER = {
    "encoder_version": "0" * 16,
    "collection": "clips-0-1",
    "hits": [{
        "video_id": "a" * 32, "start_ms": 62_300, "end_ms": 3_600_000, "score": 0.51239, "confidence": None,
        "best_clip_id": "b", "best_ms": 63_000, "clip_ids": ["b"], "title": "[red]x[/red]\x1b[2J", "uri": "a/ö.mp4",
        "thumbnail_url": None,
    }],
    "next_offset": None,
}


class FakeSearcher:
    """Notes what it is asked, and gives ANSWER."""

    spec = SimpleNamespace(num_frames=2, resizing=SimpleNamespace(shorter_px=8))

    def encode(self, positive: QueryInputs, negative: QueryInputs) -> tuple[QueryInputs, QueryInputs]:
        return positive, negative

    def search(self, query: tuple[QueryInputs, QueryInputs], options: SearchOptions) -> FakeSearcher:
        self.positive, self.negative = query
        self.options = options
        return self

    def to_json(self) -> dict[str, Any]:
        return ANSWER


def run(*args: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, in `folder`."""
    ours = ("VIDSEEK_HOME", "VIDSEEK_URL", "MLFLOW_TRACKING_URI")
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return run_command(args, folder=folder, env={**inherited, "PYTHONPATH": str(PACKAGES), **environment})


def code_of(ended: subprocess.CompletedProcess[str]) -> str:
    """The code of the error that the command, called with `--json`, printed."""
    return str(json.loads(ended.stdout)["error"]["code"])


@pytest.fixture
def searcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeSearcher:
    fake = FakeSearcher()
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("VIDSEEK_HOME", str(tmp_path))
    monkeypatch.setattr(vidseek.archive, "load_encoder", lambda *args, **kwargs: fake)
    monkeypatch.setattr(vidseek.archive, "open_searcher", lambda *args: fake)
    return fake


def test_main__error_of_ours_is_its_exit_code_message_and_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise GateFailed("7 rows fail", remedy="Look at them")

    monkeypatch.setattr(vidseek.cli, "app", fails)
    assert call(monkeypatch) == GateFailed.exit_code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "vidseek: 7 rows fail\n  → Look at them\n")


@pytest.mark.parametrize(("args", "is_json"), [
    (("--json",), True), (("x", "--json", "--", "y"), True), (("--", "--json"), False),
])
def test_main__error_of_ours_is_one_document_where_json_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], is_json: bool
) -> None:
    def fails() -> None:
        raise GateFailed("7 rows \x1b fail", code="gate-not-passed", remedy="Look at them")

    monkeypatch.setattr(vidseek.cli, "app", fails)
    assert call(monkeypatch, *args) == GateFailed.exit_code
    out, err = capsys.readouterr()
    assert "  → Look at them\n" in err
    assert (json.loads(out) if out else None) == ({"error": {
        "code": "gate-not-passed", "class": "gate_failed", "exit_code": 14, "message": "7 rows \x1b fail",
        "remedy": "Look at them",
    }} if is_json else None)


@pytest.mark.parametrize("kind", VidseekError.__subclasses__())
def test_main__exit_codes_are_the_designs(monkeypatch: pytest.MonkeyPatch, kind: type[VidseekError]) -> None:
    def fails() -> None:
        raise kind("x")

    monkeypatch.setattr(vidseek.cli, "app", fails)
    assert call(monkeypatch) == kind.exit_code


def test_search__json_is_the_answer(
    searcher: FakeSearcher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "search", "a red ball", "--limit", "3", "--json") == 0
    assert json.loads(capsys.readouterr().out) == ANSWER
    assert (searcher.positive, searcher.negative) == (QueryInputs(texts=("a red ball",)), QueryInputs())
    assert searcher.options == SearchOptions(limit=3)


def test_search__every_option_reaches_the_searcher(
    searcher: FakeSearcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Image.new("RGB", (6, 4), (255, 0, 0)).save(tmp_path / "red.png")
    write_video(tmp_path / "clip.mp4", num_frames=20)
    assert call(
        monkeypatch, "search", "a crane", "at night", "--image", str(tmp_path / "red.png"), "--clip",
        str(tmp_path / "clip.mp4"), "--clip-id", "one", "--negative", "a van", "--not-like", "two", "--channel", "news",
        "--channel", "sport", "--after", "2024-05-01", "--before", "2024-06-01", "--filter", "duration_ms>=5000",
        "--filter", "duration_ms<9000", "--weights", "video=1,words=0.5", "--diversity", "0.25", "--limit", "2",
        "--offset", "4", "--collection", "clips-0-1",
    ) == 0
    assert searcher.positive.texts == ("a crane", "at night") and searcher.positive.clip_ids == ("one",)
    assert searcher.positive.images[0].shape == (4, 6, 3) and tuple(searcher.positive.images[0][0, 0]) == (255, 0, 0)
    assert searcher.positive.clips[0].shape[0] == 2
    assert (searcher.negative.texts, searcher.negative.clip_ids, searcher.negative.images) == (("a van",), ("two",), ())
    assert searcher.options == SearchOptions(
        limit=2, offset=4, collection="clips-0-1", weights=weights_of("video=1,words=0.5"), diversity=0.25,
        filters={
            "channel": ["news", "sport"], "published_at": {"gte": "2024-05-01", "lt": "2024-06-01"},
            "duration_ms": {"gte": 5000, "lt": 9000},
        },
    )


def test_search__open_plays_the_first_at_its_second(
    searcher: FakeSearcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text("ingest: {source: videos}")
    (tmp_path / "videos" / "a").mkdir(parents=True)
    (tmp_path / "videos" / "a" / "ö.mp4").touch()
    player = tmp_path / "bin" / "mpv"
    player.parent.mkdir()
    player.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/.played && mv {tmp_path}/.played {tmp_path}/played\n")
    player.chmod(0o755)
    monkeypatch.setenv("PATH", f"{player.parent}:/bin:/usr/bin")
    assert call(monkeypatch, "search", "a crane", "--open") == 0
    wait_until((tmp_path / "played").exists)
    assert (tmp_path / "played").read_text() == f"--start=62.300 -- {tmp_path}/videos/a/ö.mp4\n"
    player.unlink()
    monkeypatch.setenv("PATH", str(player.parent))
    assert call(monkeypatch, "search", "a crane", "--open") == ConfigError.exit_code


class Api(BaseHTTPRequestHandler):
    """Notes key and body, and answers with what it was told to."""

    status, content, bodies = 200, ANSWER, []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.bodies.append((self.path, self.headers["authorization"], body))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(json.dumps(self.content).encode())

    def log_message(self, *_: object) -> None:
        pass


def test_search__url_asks_a_running_api(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "red.jpg").write_bytes(b"picture")
    with HTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        assert call(monkeypatch, "search", "a crane", "--url", url, "--json", "--offset", "3", "--model", "base") == 0
        assert json.loads(capsys.readouterr().out) == ANSWER
        monkeypatch.setenv("VIDSEEK_URL", url)
        monkeypatch.setenv("VIDSEEK_API_KEY", "secret")
        assert call(monkeypatch, "search", "--image", str(tmp_path / "red.jpg"), "--channel", "news") == 0
        assert call(monkeypatch, "search", "a crane", "--negative-image", str(tmp_path / "red.jpg")) == 0
        paths, keys, bodies = zip(*Api.bodies, strict=True)
        assert (paths, keys) == (("/v1/search",) * 3, (None, "Bearer secret", "Bearer secret"))
        assert json.loads(bodies[0]) == {"limit": 10, "text": "a crane", "offset": 3, "model": "base"}
        assert b'name="image"' in bodies[1] and b"picture" in bodies[1]
        assert b'{"limit": 10, "filters": {"channel": ["news"]}}' in bodies[1]
        assert b'name="negative_image"' in bodies[2] and b"picture" in bodies[2] and b'"text": "a crane"' in bodies[2]
        Api.content = {"error": {"code": "x", "message": "no such thing", "remedy": "Leave it"}}
        for status, code in (
            (422, InputRejected.exit_code), (401, ConfigError.exit_code), (403, ConfigError.exit_code),
            (503, ServiceError.exit_code),
        ):
            Api.status = status
            assert call(monkeypatch, "search", "a crane") == code
            assert "no such thing\n  → Leave it" in capsys.readouterr().err
        server.shutdown()
    assert call(monkeypatch, "search", "a crane") == ServiceError.exit_code
    assert call(monkeypatch, "search", "a crane", "--url", "ftp://x") == ConfigError.exit_code


def test_search__table_shows_times_and_titles_as_text(
    searcher: FakeSearcher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "search", "a red ball") == 0
    out = capsys.readouterr().out
    assert "1:02.3 – 1:00:00.0" in out and "0.512" in out and "a/ö.mp4" in out
    assert "[red]x[/red]\\x1b[2J" in out  # neither markup nor a terminal's command


@pytest.mark.parametrize("args", [["search", "x", "--limit", "0"], ["search"], ["nonsense"], ["index", "nonsense"]])
def test_usage__wrong_arguments_exit_2(tmp_path: Path, args: list[str]) -> None:
    assert run(*args, folder=tmp_path).returncode == 2


def test_search__blank_query_is_rejected(tmp_path: Path) -> None:
    ended = run("search", "  ", "--json", folder=tmp_path)
    assert (ended.returncode, code_of(ended)) == (10, "empty-query") and "blank" in ended.stderr


@pytest.mark.parametrize("command", [["search", "a red ball"], ["serve"], ["mlflow"], ["dedup"]])
def test_commands__before_anything_is_published_name_the_remedy(tmp_path: Path, command: list[str]) -> None:
    ended = run(*command, folder=tmp_path)
    assert ended.returncode == ArtifactError.exit_code
    assert "dvc repro" in ended.stderr and "Traceback" not in ended.stderr
    assert ended.stdout == "" and not list(tmp_path.iterdir())


def test_search__wrong_params_are_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("search: {marg: 1}")
    ended = run("search", "x", "--json", folder=tmp_path)
    assert (ended.returncode, code_of(ended)) == (11, "unknown-setting") and "search.marg" in ended.stderr


def test_ingest__without_a_source_is_a_config_error(tmp_path: Path) -> None:
    assert run("ingest", folder=tmp_path).returncode == 11


def test_probe__no_video_is_rejected_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"")
    ended = run("probe", "x.mp4", "--json", folder=tmp_path)
    assert (ended.returncode, code_of(ended)) == (10, "file-empty") and "x.mp4" in ended.stderr


def test_index__nothing_published(tmp_path: Path) -> None:
    assert json.loads(run("index", "list", "--json", folder=tmp_path).stdout) == []
    assert json.loads(run("index", "prune", "--json", folder=tmp_path).stdout) == {"removed": []}
    for command in ("verify", "rollback", "compact"):
        ended = run("index", command, "--json", folder=tmp_path)
        assert (ended.returncode, code_of(ended)) == (12, "not-published")
    assert not list(tmp_path.iterdir())


def test_mlflow__server_is_named_not_started(tmp_path: Path) -> None:
    ended = run("mlflow", folder=tmp_path, MLFLOW_TRACKING_URI="http://runs.example:5000")
    assert ended.returncode == 0 and "http://runs.example:5000" in ended.stdout


def test_help__imports_no_room_and_no_heavy_library() -> None:
    code = (
        "import sys, vidseek.cli\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'yaml', 'pydantic', 'torch', 'onnxruntime', 'bentoml', 'mlflow'}\n"
        "light = {'vidseek_media', 'vidseek_media.errors', 'vidseek_media.moved'}\n"
        "rooms = {n for n in sys.modules if n.startswith('vidseek_')} - light\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert not rooms, rooms\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(PACKAGES)})


def commands_of(group: TyperGroup, *before: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*before, name)
        if isinstance(command, TyperGroup):
            yield from commands_of(command, *before, name)


@pytest.mark.slow
def test_help__is_whole_in_a_narrow_terminal() -> None:
    whole = typer.main.get_command(vidseek.cli.app)
    assert isinstance(whole, TyperGroup)
    for command in [(), *commands_of(whole)]:
        told = CliRunner().invoke(vidseek.cli.app, [*command, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
        assert told.exit_code == 0
        assert [line for line in told.stdout.splitlines() if "…" in line] == [], command


def test_version__is_that_of_the_distribution(tmp_path: Path) -> None:
    assert run("--version", folder=tmp_path).stdout == f"vidseek {metadata.version('vidseek')}\n"


def test_help__lists_the_commands(tmp_path: Path) -> None:
    out = run("--help", folder=tmp_path).stdout
    assert all(name in out for name in ("search", "serve", "doctor", "mlflow", "ingest", "probe", "index", "demo"))


@pytest.mark.parametrize(("time_ms", "text"), [
    (0, "0:00.0"), (999, "0:00.9"), (62_349, "1:02.3"), (3_600_000, "1:00:00.0"), (3_723_050, "1:02:03.0"),
])
def test_clock__minutes_seconds_tenths(time_ms: int, text: str) -> None:
    assert vidseek.printing.clock(time_ms) == text


@pytest.mark.parametrize("option", [(), pytest.param(("--base",), marks=pytest.mark.slow)])  # torch exports the base
def test_mteb__judges_the_bundle_or_its_base(
    option: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_bundle(tmp_path / "models" / "encoder", backbone="vidseek/clip-tiny")
    asked: list[tuple[str, str, list[str], Path]] = []

    def run_tasks(encoder: Encoder, name: str, tasks: list[str], out: Path) -> dict[str, float]:
        asked.append((encoder.spec.family, name, tasks, out))
        return {"MSVDT2VRetrieval": 0.5}

    monkeypatch.setenv("VIDSEEK_HOME", str(tmp_path))
    monkeypatch.setattr("vidseek_training.benchmarks.mteb_model.run_tasks", run_tasks)
    assert call(monkeypatch, "mteb", "MSVDT2VRetrieval", "--json", *option) == 0
    assert json.loads(capsys.readouterr().out) == {"MSVDT2VRetrieval": 0.5}
    wanted = ("clip", "base") if option else ("tiny", "taught")
    assert asked == [(*wanted, ["MSVDT2VRetrieval"], tmp_path / "reports" / "mteb")]


def test_mlflow__is_started_for_this_machine_alone_and_its_store_is_in_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vidseek.commands import running

    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setenv("VIDSEEK_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://mlflow:pa55word@host/runs")
    monkeypatch.setattr(running.os, "execve", lambda _, command, environment: started.append((command, environment)))
    with raises(ConfigError, code="not-only-local"):
        running.mlflow(host="0.0.0.0", port=5000)
    running.mlflow(host="127.0.0.1", port=0)
    [(command, environment)] = started
    assert "pa55word" not in " ".join(command)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == "postgresql://mlflow:pa55word@host/runs"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:pa55word@host/runs?token=s3cret")
    running.mlflow(host="127.0.0.1", port=0)
    said = capsys.readouterr()
    assert "https://host/runs" in said.out and "pa55word" not in said.out + said.err and "s3cret" not in said.out + said.err


def test_print__json_and_lines_have_no_sign_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[2J\x7f\x9b\u202e\udcff\n\U000e0041한국.mp4"
    vidseek.printing.print_json({"uri": name})
    vidseek.printing.say(f"removed {name}")
    out = capsys.readouterr().out
    assert not any(char in out for char in "\x1b\x7f\x9b\u202e\udcff") and "한국" in out
    assert json.loads(out.partition("removed")[0]) == {"uri": name}


LONG = "2026/05/the folder of a camera/validation-unseen-10-of-the-harbour-camera-two.mp4"
HITS = [
    {"video_id": "0" * 32, "uri": uri, "title": title, "score": 0.5, "confidence": 0.44, "start_ms": 1000, "end_ms": 2000,
     "thumbnail_url": None}
    for uri, title in ((LONG, "Harbour, seen from the second camera at night"), ("b.mp4", "b"))
]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_show_hits__breaks_no_name_of_a_file(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    vidseek.printing.show_hits(HITS)
    out = capsys.readouterr().out
    assert LONG in out and "night" in out and "0.44" in out and f"{'0' * 12}:1000-2000" in out


def test_show_hits__a_title_that_is_the_name_of_the_file_is_no_column(capsys: pytest.CaptureFixture[str]) -> None:
    vidseek.printing.show_hits(HITS[1:])
    out = capsys.readouterr().out
    assert "title" not in out and out.count("b") == len(["b.mp4"])
