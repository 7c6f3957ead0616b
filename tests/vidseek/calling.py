"""Calls the command in this process."""

from __future__ import annotations

import sys

import pytest

import vidseek.cli
import vidseek.printing


def call(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    """`main` in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["vidseek", *args])
    monkeypatch.setattr(vidseek.printing, "has_printed_json", False)  # a command is a process of its own
    with pytest.raises(SystemExit) as ended:
        vidseek.cli.main()
    return int(ended.value.code or 0)
