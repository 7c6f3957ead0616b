from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.raising import raises
from tests.training.llm_servers import CAPTIONS
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_training.captioning.journal import (
    EARLIER_NAME,
    JOURNAL_NAME,
    LOCK_NAME,
    Entry,
    Journal,
    forget_captions,
    open_journal,
    read_journal,
)


def ask(journal: Journal, key: str = "k", *, video: str = "v", reserved: float = 0.5) -> str:
    return journal.ask(key=key, basis="b", video_id=video, reserved_usd=reserved)


def answer(
    journal: Journal, number: str, *, captions: dict[str, str] | None = CAPTIONS, reason: str = "", cost: float = 0.2,
    **more: Any,
) -> None:
    journal.answer(
        number, captions=captions, reason=reason, tokens=(300, 20), guessed_in=200, cost_usd=cost, **more,
    )


def test_journal__what_was_answered_is_there_again(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        answer(journal, ask(journal))
    again = read_journal(tmp_path)
    assert again.entries == {"k": Entry(CAPTIONS, "", 0.2)}
    assert (again.settled_usd, again.unsettled_usd) == (0.2, 0.0)
    tally = again.tallies["b"]
    assert (tally.num_answers, tally.tokens_in, tally.tokens_out, tally.max_ratio_in) == (1, 300, 20, 1.5)


def test_journal__an_ask_without_an_answer_counts_as_spent(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        answer(journal, ask(journal, "a"))
        ask(journal, "b", reserved=0.7)
        journal.free(ask(journal, "c", reserved=9.0))
    again = read_journal(tmp_path)
    assert (again.settled_usd, again.unsettled_usd) == (0.2, 0.7)
    assert set(again.entries) == {"a"}


def test_journal__the_last_answer_counts_and_the_cost_of_all(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        answer(journal, ask(journal), captions=None, reason="")
        answer(journal, ask(journal), cost=0.3)
    entry = read_journal(tmp_path).entries["k"]
    assert entry.captions == CAPTIONS and entry.cost_usd == pytest.approx(0.5)


def test_journal__the_model_and_where_an_answer_was_cut_are_kept(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        answer(journal, ask(journal, "a"), captions=None, reason="cut off", cut_at=256, model="seer-1-0417")
        now = journal.entries["a"]
    assert read_journal(tmp_path).entries["a"] == now == Entry(None, "cut off", 0.2, 256, "seer-1-0417")


def test_journal__foreign_text_is_mended(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        answer(journal, ask(journal), captions=None, reason="blocked \ud83d\x00 for now", model="se\udc00er")
    entry = read_journal(tmp_path).entries["k"]
    assert (entry.reason, entry.model) == ("blocked for now", "seer")


def test_journal__of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    with open_journal(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / JOURNAL_NAME)) as db:
        db.execute("PRAGMA user_version = 7")
    before = (tmp_path / JOURNAL_NAME).read_bytes()
    with raises(ArtifactError, code="journal-other-format") as caught, open_journal(tmp_path):
        pass
    assert "format 7" in caught.value.message and (tmp_path / JOURNAL_NAME).read_bytes() == before


def test_journal__is_one_file_that_can_be_copied_and_read(tmp_path: Path) -> None:
    with open_journal(tmp_path / "here") as journal:
        answer(journal, ask(journal))
    (tmp_path / "there").mkdir()
    shutil.copy(tmp_path / "here" / JOURNAL_NAME, tmp_path / "there")
    assert read_journal(tmp_path / "there").entries == read_journal(tmp_path / "here").entries
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [LOCK_NAME, JOURNAL_NAME]


def test_journal__looking_beside_a_writer_sees_what_is_there(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        answer(journal, ask(journal, "a"))
        assert set(read_journal(tmp_path).entries) == {"a"}
        answer(journal, ask(journal, "b"))
        assert set(read_journal(tmp_path).entries) == {"a", "b"}
    with raises(ArtifactError, code="journal-not-open"):
        ask(read_journal(tmp_path), "c")


KILLED = """
import os, sys, threading
sys.path.insert(0, "packages")
from pathlib import Path
from vidseek_training.captioning.journal import open_journal

def work(name):
    for i in range(100000):
        number = journal.ask(key=f"{name}-{i}", basis="b", video_id="v", reserved_usd=1.0)
        journal.answer(number, captions={"short": "x" * 300}, reason="", tokens=(3, 2), guessed_in=3, cost_usd=0.25)
        os.write(1, f"{name}-{i}\\n".encode())

with open_journal(Path(sys.argv[1])) as journal:
    threads = [threading.Thread(target=work, args=(f"{sys.argv[2]}-{n}",)) for n in range(4)]
    [each.start() for each in threads]
    [each.join() for each in threads]
"""


def test_journal__killed_at_any_moment_with_several_threads_keeps_what_was_answered(tmp_path: Path) -> None:
    """kill -9 while four threads write: what was reported as kept is there, and one request a thread may be open."""
    told: set[str] = set()
    for run, num_lines in enumerate((1, 23, 60)):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "j"), str(run)], cwd=Path(__file__).parents[3],
            stdout=subprocess.PIPE, text=True,
        )
        assert process.stdout is not None
        told |= {process.stdout.readline().strip() for _ in range(num_lines)}
        process.kill()
        told |= {line.strip() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")}
        process.wait()
        journal = read_journal(tmp_path / "j")
        assert told <= set(journal.entries) and len(journal.entries) - len(told) <= 4 * (run + 1)
        assert journal.settled_usd == pytest.approx(0.25 * len(journal.entries))
        assert journal.unsettled_usd <= 4 * (run + 1)
    with open_journal(tmp_path / "j") as journal:
        assert told <= set(journal.entries)


EARLIER = [
    {"event": "ask", "ask": "1", "key": "a", "basis": "b", "video_id": "v", "reserved_usd": 0.5},
    {"event": "answer", "ask": "1", "key": "a", "basis": "b", "video_id": "v", "captions": None, "reason": "",
     "tokens": [300, 20], "guessed_in": 200, "cost_usd": 0.1, "max_output_tokens": 64},
    {"event": "ask", "ask": "2", "key": "a", "basis": "b", "video_id": "v", "reserved_usd": 0.5},
    {"event": "answer", "ask": "2", "key": "a", "basis": "b", "video_id": "v", "captions": CAPTIONS, "reason": "",
     "tokens": [100, 30], "guessed_in": 200, "cost_usd": 0.2, "max_output_tokens": 64},
    {"event": "ask", "ask": "3", "key": "cut", "basis": "b", "video_id": "w", "reserved_usd": 0.5},
    {"event": "answer", "ask": "3", "key": "cut", "basis": "b", "video_id": "w", "captions": None,
     "reason": "the answer was cut off at 64 tokens", "tokens": None, "guessed_in": 9, "cost_usd": 0.4,
     "max_output_tokens": 64},
    {"event": "ask", "ask": "4", "key": "no", "basis": "b", "video_id": "w", "reserved_usd": 0.5},
    {"event": "answer", "ask": "4", "key": "no", "basis": "b", "video_id": "w", "captions": None, "reason": "is a refusal",
     "tokens": [1, 1], "guessed_in": 9, "cost_usd": 0.0, "max_output_tokens": 64},
    {"event": "ask", "ask": "5", "key": "open", "basis": "b", "video_id": "w", "reserved_usd": 0.7},
    {"event": "ask", "ask": "6", "key": "free", "basis": "b", "video_id": "w", "reserved_usd": 9.0},
    {"event": "free", "ask": "6"}, {"event": "spent", "cost_usd": 0.8},
]
"""What an earlier version wrote: a bad answer and a good one, a cut one, a refusal, one never answered, a free one, a
forgotten one."""


def write_earlier(folder: Path) -> str:
    lines = "".join(json.dumps(event) + "\n" for event in EARLIER) + '{"event": "answer", "ask": "12", "capt\n'
    (folder / EARLIER_NAME).write_text(lines)
    return lines


def check_earlier(journal: Journal) -> None:
    assert {key: replace(entry, cost_usd=round(entry.cost_usd, 9)) for key, entry in journal.entries.items()} == {
        "a": Entry(CAPTIONS, "", 0.3), "cut": Entry(None, "the answer was cut off at 64 tokens", 0.4, 64),
        "no": Entry(None, "is a refusal", 0.0),
    }
    assert journal.settled_usd == pytest.approx(1.5) and journal.unsettled_usd == 0.7
    assert (journal.tallies["b"].num_answers, journal.tallies["b"].tokens_in) == (3, 401)


def test_journal__of_an_earlier_version_is_taken_over_whole_and_once(tmp_path: Path) -> None:
    lines = write_earlier(tmp_path)
    looked_at = read_journal(tmp_path)
    check_earlier(looked_at)
    assert looked_at.num_broken == 1 and [path.name for path in tmp_path.iterdir()] == [EARLIER_NAME]  # only looked at
    with open_journal(tmp_path) as journal:
        check_earlier(journal)
        assert journal.num_broken == 1
    assert not (tmp_path / EARLIER_NAME).exists()
    check_earlier(read_journal(tmp_path))
    (tmp_path / EARLIER_NAME).write_text(lines)  # as where the process was killed before it could remove it
    with open_journal(tmp_path) as journal:
        check_earlier(journal)
    assert forget_captions(tmp_path, {"w"}) == 2
    assert read_journal(tmp_path).settled_usd == pytest.approx(1.5)


def test_journal__an_earlier_one_with_a_line_of_another_kind_stays_as_it_is(tmp_path: Path) -> None:
    lines = write_earlier(tmp_path) + '{"event": "answer", "ask": "1"}\n'
    (tmp_path / EARLIER_NAME).write_text(lines)
    for use in (read_journal, lambda folder: forget_captions(folder, {"v"})):
        with raises(ArtifactError, code="journal-broken") as caught:
            use(tmp_path)
        assert EARLIER_NAME in caught.value.message
    assert (tmp_path / EARLIER_NAME).read_text() == lines
    (tmp_path / EARLIER_NAME).unlink()
    assert read_journal(tmp_path).entries == {}  # all or nothing


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\x00" + b"\xff" * 200])
def test_journal__what_is_none_is_an_artifact_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / JOURNAL_NAME).write_bytes(content)
    with raises(ArtifactError, code="journal-broken") as caught:
        read_journal(tmp_path)
    assert JOURNAL_NAME in caught.value.message


def test_journal__is_nobodys_but_the_owners(tmp_path: Path) -> None:
    with open_journal(tmp_path):
        pass
    assert (tmp_path / JOURNAL_NAME).stat().st_mode & 0o077 == 0


def test_open_journal__one_process_at_a_time(tmp_path: Path) -> None:
    with open_journal(tmp_path), raises(ConfigError, code="locked-elsewhere"), open_journal(tmp_path):
        pass
    with open_journal(tmp_path):
        pass


def test_journal__a_full_disk_is_an_artifact_error_and_spoils_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'packages')\n"
        "from pathlib import Path\nfrom uuid import uuid4\nfrom vidseek_training.captioning.journal import open_journal\n"
        f"with open_journal(Path({str(tmp_path)!r})) as journal:\n"
        "    while True:\n"
        "        number = journal.ask(key=uuid4().hex, basis='b', video_id='v', reserved_usd=0.1)\n"
        "        journal.answer(number, captions={'short': 'x' * 200}, reason='',\n"
        "                       tokens=(1, 1), guessed_in=1, cost_usd=0.0)\n"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, preexec_fn=limit,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, check=False,
    )
    assert "ArtifactError" in run.stderr and "cannot be written" in run.stderr
    before = set(read_journal(tmp_path).entries)
    assert len(before) > 10
    with open_journal(tmp_path) as journal:
        answer(journal, ask(journal, "new"))
    assert set(read_journal(tmp_path).entries) == before | {"new"}


def test_forget_captions__takes_out_texts_and_keeps_what_they_cost(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        answer(journal, ask(journal, "a", video="one"))
        answer(journal, ask(journal, "b", video="two"))
        ask(journal, "c", video="one", reserved=0.7)
    assert forget_captions(tmp_path, {"one"}) == 1
    again = read_journal(tmp_path)
    assert set(again.entries) == {"b"}
    assert again.settled_usd == pytest.approx(0.4) and again.unsettled_usd == pytest.approx(0.7)
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"one" not in content and content.count(CAPTIONS["detail"].encode()) == 1
    assert forget_captions(tmp_path, {"one"}) == 0
    assert forget_captions(tmp_path / "nothing", {"one"}) == 0
