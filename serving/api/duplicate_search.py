"""The search for near-duplicates, in a process of its own: it takes minutes, and what it finds is kept for all."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidseek.actions.feedback import now
from vidseek.archive import HOME_VARIABLE, Archive
from vidseek_media.errors import ArtifactError, InputRejected, VidseekError
from vidseek_media.files.json_files import read_json, write_json

if TYPE_CHECKING:
    from vidseek_retrieval.dedup.video_matches import Duplicate


class AlreadyRunning(InputRejected):
    """Somebody is looking for near-duplicates now."""

    category = "already_running"
    code = "already-running"


@dataclass(frozen=True)
class Found:
    """What the last search came to."""

    found_at: str
    collection: str
    threshold: dict[str, float]
    rows: tuple[Duplicate, ...]
    uris: dict[str, str]
    reasons: dict[str, dict[str, Any]]
    """Why two are called one, by the key of the row."""


class Finding:
    """Starts `vidseek dedup --json` on an archive, one at a time, and keeps what it says.

    Args:
        archive: In whose `.vidseek` it is kept.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._file = archive.state / "duplicates.json"
        self._task: asyncio.Task[None] | None = None
        self.problem = ""
        """Why the last search failed, or empty."""

    @property
    def is_running(self) -> bool:
        """Whether a search runs."""
        return self._task is not None and not self._task.done()

    def start(self, *, precision: float) -> None:
        """Begin a search.

        Raises:
            AlreadyRunning: one runs.
        """
        if self.is_running:
            raise AlreadyRunning("a search for near-duplicates runs already", remedy="Wait for it to end")
        self.problem = ""
        self._task = asyncio.get_running_loop().create_task(self._run(precision))

    def close(self) -> None:
        """Stop a search that runs."""
        if self._task is not None:
            self._task.cancel()

    def last(self) -> Found | None:
        """Return the result of the last successful search; None if there was none.

        Raises:
            ArtifactError: its file is broken.
        """
        from vidseek_retrieval.dedup.video_matches import Duplicate  # pandas and a decoder: the service starts without them

        try:
            content = read_json(self._file)
            report, threshold = content["report"], content["report"]["threshold"]
            return Found(
                str(content["found_at"]), str(report["collection"]),
                {name: float(threshold[name]) for name in ("precision", "recall")},
                tuple(Duplicate(**row) for row in report["duplicates"]), dict(report["uris"]),
                dict(report.get("reasons", {})),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{self._file} is broken: {error}", code="json-unreadable", remedy="Look for near-duplicates again",
            ) from error

    async def _run(self, precision: float) -> None:
        environment = {**os.environ, HOME_VARIABLE: str(self._archive.root), "PYTHONPATH": os.pathsep.join(sys.path)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "vidseek.cli", "dedup", "--precision", str(precision), "--json",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment,
        )
        try:
            output, errors = await process.communicate()
            if process.returncode == 0:
                self._keep(json.loads(output))
            else:
                self.problem = _said(errors.decode(errors="replace"))
        except (OSError, ValueError, VidseekError) as error:
            self.problem = f"what was found cannot be kept: {error}"
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()

    def _keep(self, report: dict[str, Any]) -> None:
        write_json(self._file, {"found_at": now(), "report": report}, indent=None)


def _said(errors: str) -> str:
    """Return the command's message to its user: from `vidseek:` on, in one line; or the last line of its other output."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    begins = [number for number, line in enumerate(lines) if line.startswith("vidseek: ")]
    if begins:
        return ". ".join(line.removeprefix("vidseek: ").removeprefix("→ ") for line in lines[begins[-1] :])
    return lines[-1] if lines else "it ended without a word"
