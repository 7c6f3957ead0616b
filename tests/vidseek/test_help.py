"""Every command explains itself: examples that the command takes, and JSON where it answers something."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
from typer.main import get_command

from vidseek.cli import EXAMPLES, EXIT_CODES, app
from vidseek_media import errors

RUNS_ON = {"run", "serve", "ui", "mcp", "mlflow"}
"""Commands that answer nothing: they run a program."""


def commands() -> dict[str, object]:
    def leaves(group: object, path: str = "") -> Iterator[tuple[str, object]]:
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            if hasattr(command, "commands"):
                yield from leaves(command, f"{path}{name} ")
            else:
                yield f"{path}{name}", command

    return dict(leaves(get_command(app)))


@pytest.mark.parametrize("name", commands())
def test_command__has_examples_that_it_takes(name: str) -> None:
    command = commands()[name]
    lines = [line.strip() for line in (command.epilog or "").splitlines() if f"vidseek {name}" in line]  # type: ignore[attr-defined]
    assert lines
    for line in lines:
        call = re.sub(r"\s\(.*\)$", "", line[line.index(f"vidseek {name}"):]).split("|")[0]
        arguments = shlex.split(call)[1 + len(name.split()):]
        command.make_context(name, arguments)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(commands().keys() - RUNS_ON))
def test_command__answers_in_json_too(name: str) -> None:
    assert any("--json" in option.opts for option in commands()[name].params)  # type: ignore[attr-defined]


def test_examples__are_of_commands_that_are_there() -> None:
    assert EXAMPLES.keys() <= commands().keys()


def test_exit_codes__are_those_of_the_errors() -> None:
    kinds = (errors.InputRejected, errors.ConfigError, errors.ArtifactError, errors.DeviceError, errors.GateFailed,
             errors.ServiceError)
    assert [int(code) for code in re.findall(r"\b1\d\b", EXIT_CODES)] == [kind.exit_code for kind in kinds]
