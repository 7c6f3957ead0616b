from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidseek_media.errors import ArtifactError
from vidseek_media.output import disk_fault, printable, shown_record

FAULTS = int(os.environ.get("VIDSEEK_FAULTS", "0"))
"""More of them in `make faults`."""
PACKAGES = Path(__file__).resolve().parents[2] / "packages"
OBEYED = ["\x1b[2J", "\x07", "\x08\x08", "\r", "\n", "\t", "\x00", "\x7f", "\x9b31m", "\u202egpj.4pm", "\u2066", "\u200f",
          "\u061c", "\ufeff", "\u2028", "\udc9b", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\"]


@settings(max_examples=max(100, 10 * FAULTS), deadline=None)
@given(st.text() | st.sampled_from(OBEYED) | st.binary().map(os.fsdecode))
def test_printable__has_no_sign_that_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert all(unicodedata.category(char)[0] != "C" or char in "\u200c\u200d" for char in shown)
    assert not {"\u2028", "\u2029", "\n"} & set(shown)
    shown.encode()  # no lone surrogate
    assert printable(shown) == shown


@pytest.mark.parametrize(("text", "shown"), [
    ("a\x1b[31mb", r"a\x1b[31mb"), ("a\u202eb", r"a\u202eb"),
    ("한국어 – é 👩\u200d👧 می\u200cخواهم", "한국어 – é 👩\u200d👧 می\u200cخواهم"),
    ("a\u3000b", "a\u3000b"), ("\udcff.mp4", r"\udcff.mp4"), ("back\\slash", "back\\slash"),
])
def test_printable__keeps_what_people_write(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_log__a_line_and_its_traceback_are_shown_without_secrets_and_commands() -> None:
    try:
        raise ValueError("https://me:pass@host/a?sig=1 \x1b[2J")
    except ValueError:
        url = "https://me:pass@host/b?sig=2"
        record = shown_record("x", logging.WARNING, "f", 1, "retry %s", (url,), sys.exc_info())
    line = logging.Formatter("%(message)s").format(record)
    assert "pass" not in line and "sig" not in line and "\x1b" not in line
    assert line.startswith("retry https://host/b\nTraceback") and r"https://host/a \x1b[2J" in line


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG])
def test_disk_fault__names_the_folder_and_what_to_do(number: int, tmp_path: Path) -> None:
    fault = disk_fault(OSError(number, os.strerror(number), str(tmp_path / "a")))
    assert isinstance(fault, ArtifactError) and str(tmp_path) in fault.message and "TMPDIR" in fault.remedy
    wrapped = RuntimeError("a library fails")
    wrapped.__cause__ = OSError(number, os.strerror(number))
    fault = disk_fault(wrapped)
    assert fault is not None and "temporary files go to" in fault.message


def test_disk_fault__no_folder_for_temporary_files_is_one_and_others_are_none() -> None:
    fault = disk_fault(FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp', '/var/tmp']"))
    assert fault is not None and "takes no file" in fault.message
    for other in (FileNotFoundError(errno.ENOENT, "No such file"), ValueError("x"), PermissionError(errno.EACCES, "denied")):
        assert disk_fault(other) is None


@pytest.mark.parametrize(("body", "wanted", "code"), [
    ("raise RuntimeError('https://me:pa55@host/a?sig=s3cret \\x1b[2J')", r"https://host/a \x1b[2J", 1),
    ("raise OSError(28, 'No space left on device', '/tmp/x')", "the disk of /tmp/x is full", 12),
    ("import logging; logging.warning('retry %s', 'https://me:pa55@host/?sig=s3cret'); raise SystemExit(3)",
     "retry https://host/", 3),
])
def test_command__a_fault_is_printed_without_secrets_and_a_full_disk_is_ours(body: str, wanted: str, code: int) -> None:
    script = f"from vidseek import cli\ndef app():\n    {body}\ncli.app = app\ncli.main()\n"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env={"PYTHONPATH": str(PACKAGES)},
    )
    assert run.returncode == code and wanted in run.stderr
    # The traceback quotes no line of a script that was given by -c.
    assert "pa55" not in run.stderr and "s3cret" not in run.stderr and "\x1b" not in run.stderr
