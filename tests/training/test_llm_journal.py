from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.llm_servers import CAPTIONS
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_training.llm.journal import JOURNAL_NAME, Entry, Journal, forget_captions, open_journal, read_journal


def ask(journal: Journal, key: str = "k", *, video: str = "v", reserved: float = 0.5) -> str:
    return journal.ask(key=key, basis="b", video_id=video, reserved_usd=reserved)


def answer(
    journal: Journal, number: str, key: str = "k", *, video: str = "v", captions: dict[str, str] | None = CAPTIONS,
    reason: str = "", cost: float = 0.2,
) -> None:
    journal.answer(
        number, key=key, basis="b", video_id=video, captions=captions, reason=reason, tokens=(300, 20), guessed_in=200,
        cost_usd=cost,
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
        answer(journal, ask(journal, "a"), "a")
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


def test_journal__a_torn_line_is_passed_over_and_the_next_one_is_whole(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        answer(journal, ask(journal, "a"), "a")
    path = tmp_path / JOURNAL_NAME
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event": "answer", "ask": "12", "key": "b", "capt')
    with open_journal(tmp_path) as journal:
        assert set(journal.entries) == {"a"}
        answer(journal, ask(journal, "c"), "c")
    assert set(read_journal(tmp_path).entries) == {"a", "c"}


def test_journal__a_line_of_another_kind_is_an_artifact_error(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_NAME).write_text('{"event": "answer", "ask": "1"}\n')
    with pytest.raises(ArtifactError, match="none of its kind"):
        read_journal(tmp_path)


def test_journal__is_nobodys_but_the_owners(tmp_path: Path) -> None:
    with open_journal(tmp_path):
        pass
    assert (tmp_path / JOURNAL_NAME).stat().st_mode & 0o077 == 0


def test_open_journal__one_process_at_a_time(tmp_path: Path) -> None:
    with open_journal(tmp_path), pytest.raises(ConfigError, match="another process"), open_journal(tmp_path):
        pass
    with open_journal(tmp_path):
        pass


def test_journal__a_full_disk_is_an_artifact_error_and_spoils_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'packages')\n"
        "from pathlib import Path\nfrom vidseek_training.llm.journal import open_journal\n"
        f"with open_journal(Path({str(tmp_path)!r})) as journal:\n"
        "    while True:\n"
        "        number = journal.ask(key='k', basis='b', video_id='v', reserved_usd=0.1)\n"
        "        journal.answer(number, key=number, basis='b', video_id='v', captions={'short': 'x' * 200}, reason='',\n"
        "                       tokens=(1, 1), guessed_in=1, cost_usd=0.0)\n"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, preexec_fn=limit,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, check=False,
    )
    assert "ArtifactError" in run.stderr and "cannot be written" in run.stderr
    before = set(read_journal(tmp_path).entries)
    assert len(before) > 10
    with open_journal(tmp_path) as journal:
        answer(journal, ask(journal, "new"), "new")
    assert set(read_journal(tmp_path).entries) == before | {"new"}


def test_forget_captions__takes_out_texts_and_keeps_what_they_cost(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        answer(journal, ask(journal, "a", video="one"), "a", video="one")
        answer(journal, ask(journal, "b", video="two"), "b", video="two")
        ask(journal, "c", video="one", reserved=0.7)
    assert forget_captions(tmp_path, {"one"}) == 1
    again = read_journal(tmp_path)
    assert set(again.entries) == {"b"}
    assert again.settled_usd == pytest.approx(0.4) and again.unsettled_usd == pytest.approx(0.7)
    assert '"one"' not in (tmp_path / JOURNAL_NAME).read_text()
    assert forget_captions(tmp_path, {"one"}) == 0
    assert forget_captions(tmp_path / "nothing", {"one"}) == 0
