"""Writes the folder of a new archive: settings, pipeline, git and DVC; whole or absent."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import yaml

from vidseek.configuration.archive_pipeline import archive_pipeline
from vidseek.configuration.comments import commented
from vidseek.configuration.yaml_file import PARAMS_FILE
from vidseek.installation import PIPELINE, code_root
from vidseek.new_archive.costs import Costs
from vidseek.new_archive.proposal import Proposal
from vidseek.params import load_short_params
from vidseek.paths import ArchivePaths
from vidseek_media.errors import ConfigError, ServiceError
from vidseek_media.files.folders import whole_folder
from vidseek_media.files.json_files import write_json
from vidseek_media.installing import require_module

_IGNORED = """\
.vidseek/
/index/
/feedback/
/inbox/
/data/*
!/data/decisions/
/models/
/reports/
/receipts/
/dvclive/
/dvc_plots/
"""
_DVC_CONFIG = """\
[core]
    analytics = false
    check_update = false
"""
_DVC_IGNORED = """\
# Tags that people set, captions that they wrote: ingest reads them in every run, and no other stage depends on them.
/data/decisions/tags.jsonl
/data/decisions/captions.jsonl
"""
_HEAD = """\
# Settings of this archive. What is not here has its default: `vidseek settings` lists every key.
"""
_README = """\
# {name}

An archive of vidseek {version}, made of {source}.
`vidseek run` makes or updates it; `vidseek search "WORDS"` and `vidseek ui` search it; `vidseek doctor` says how it is.
Settings are in params.yaml, results in reports/report.html, what was refused in data/*/rejected.parquet.
"""


def require_new(folder: Path, videos: str) -> None:
    """Check that an archive can be made in a folder.

    Args:
        folder: The folder of the archive; it may be missing.
        videos: The source, absolute where it is a path.

    Raises:
        ConfigError: the folder holds something, lies in a git repository or among the videos, or cannot be written; or git
            or DVC is missing.
    """
    _require_programs()
    _require_empty(folder, Path(videos))
    _require_writable(folder)
    source = Path(videos).resolve()
    if source.is_dir() and folder.resolve().is_relative_to(source):
        raise ConfigError(
            f"{folder} lies in the folder of the videos, {source}", code="folder-in-source",
            remedy="Name a folder outside of it: the archive's own files are no videos",
        )
    _require_outside_git(folder)


def _require_programs() -> None:
    if shutil.which("git") is None:
        raise ConfigError(
            "git is not installed: DVC keeps versions by it", code="git-missing", remedy="Run `apt-get install git`, say",
        )
    require_module("dvc", "cpu")


def _require_empty(folder: Path, source: Path) -> None:
    if folder.is_symlink() and not folder.exists():
        raise ConfigError(f"{folder} is a link to nothing", code="folder-not-empty", remedy="Name another folder")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file", code="folder-not-empty", remedy="Name another folder")
    if (found := next(folder.iterdir(), None)) is None:
        return
    is_archive = (folder / PARAMS_FILE).is_file() and (folder / PIPELINE).is_file()
    holds = "is an archive already" if is_archive else f"is not empty: it holds {found.name}"
    if not is_archive and source.resolve().is_relative_to(folder.resolve()):
        holds = "holds the videos"
    raise ConfigError(
        f"{folder} {holds}", code="folder-not-empty",
        remedy="Run `vidseek run` in it" if is_archive else "Name a folder that is not there yet, outside of the videos",
    )


def _require_writable(folder: Path) -> None:
    above = next(each for each in folder.absolute().parents if each.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{folder} cannot be made: {above} cannot be written", code="folder-not-writable",
            remedy="Name a folder in one of your own",
        )


def _require_outside_git(folder: Path) -> None:
    """A repository that ignores the folder does not mind it."""
    above = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
    top = _said(["git", "rev-parse", "--show-toplevel"], above)
    if top.returncode != 0:
        return
    ignored = _said(["git", "check-ignore", "-q", str(folder.absolute())], above)
    if ignored.returncode != 0:
        raise ConfigError(
            f"{folder} lies in the git repository {top.stdout.strip()}, and an archive is one of its own",
            code="folder-in-repository", remedy="Name a folder outside of it, or put its name into the .gitignore there",
        )


def write_archive(folder: Path, proposal: Proposal, costs: Costs | None) -> None:
    """Write the folder of an archive, with git and DVC initialised.

    Args:
        folder: The folder; missing or empty.
        proposal: The settings.
        costs: What the archive will cost; None where that is not known.

    Raises:
        ConfigError: the settings are not valid.
        ServiceError: git or DVC fails.
        OSError: the disk cannot hold it.
    """
    with whole_folder(folder.absolute()) as fresh:
        (fresh / PARAMS_FILE).write_text(params_text(proposal), encoding="utf-8")
        load_short_params(fresh / PARAMS_FILE)
        (fresh / PIPELINE).write_text(archive_pipeline(), encoding="utf-8")
        (fresh / ".gitignore").write_text(_IGNORED, encoding="utf-8")
        about = _README.format(name=folder.absolute().name, version=version("vidseek"), source=proposal.look.text)
        (fresh / "README.md").write_text(about, encoding="utf-8")
        shipped = code_root(PIPELINE)
        shutil.copytree(shipped / "data" / "decisions", fresh / "data" / "decisions",
                        ignore=shutil.ignore_patterns("*.parquet", "*.jsonl"))
        if costs is not None:
            write_json(ArchivePaths(fresh).plan, asdict(costs))
        _run(["git", "init", "--quiet", "--initial-branch", "main"], fresh)
        _run([sys.executable, "-m", "dvc", "init", "--quiet"], fresh)
        (fresh / ".dvc" / "config").write_text(_DVC_CONFIG, encoding="utf-8")
        (fresh / ".dvcignore").write_text(_DVC_IGNORED, encoding="utf-8")
        plots = next(each for each in (shipped / "dvc" / "plots", shipped / ".dvc" / "plots") if each.is_dir())
        shutil.copytree(plots, fresh / ".dvc" / "plots", dirs_exist_ok=True)
        _run(["git", "add", "--all"], fresh)


def params_text(proposal: Proposal) -> str:
    """Return params.yaml of a proposal: what matters, each key with its comment."""
    content = proposal.params()
    sections = [
        yaml.safe_dump({name: section}, sort_keys=False, allow_unicode=True, width=10_000)
        for name, section in content.items()
    ]
    return commented(_HEAD + "\n" + "\n".join(sections))


def run_command() -> list[str]:
    """Return the command that runs the pipeline of the archive in the working directory."""
    return [sys.executable, "-m", "dvc", "repro"]


def run_environment() -> dict[str, str]:
    """Return the environment of the pipeline: `python` is this one, and no library phones home."""
    here = str(Path(sys.executable).parent)
    return {**_quiet(), "PATH": os.pathsep.join([here, os.environ.get("PATH", os.defpath)])}


def _quiet() -> dict[str, str]:
    """This environment without what points git elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}


def _said(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(command), cwd=folder, env=_quiet(), capture_output=True, text=True, check=False, errors="replace",
    )


def _run(command: Sequence[str], folder: Path) -> None:
    done = _said(command, folder)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        name = Path(command[0]).name
        raise ServiceError(
            f"{shlex.join([name, *command[1:]])} failed with exit code {done.returncode}: {said}", code="program-failed",
            remedy="Mend what it says; nothing was written",
        )
