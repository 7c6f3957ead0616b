"""Diagnoses an installation: versions, missing parts with the command that fixes them, and the state of the pipeline.

Libraries are imported in separate processes, so that one which is broken or crashes becomes a finding.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

from vidseek.archive import ALIAS, Archive
from vidseek.configuration.yaml_file import ParamsFile
from vidseek.installation import CONSTRAINTS, PIPELINE, code_root
from vidseek.reports.machine_findings import Finding, State, hub, machine
from vidseek_encoder.choices import usable_cores
from vidseek_media.decoding.sandbox import in_force
from vidseek_media.errors import ConfigError, VidseekError
from vidseek_media.files.json_files import read_json
from vidseek_media.installing import install_command, is_checkout
from vidseek_media.urls import bare_url

NEEDED = ("base", "index")
"""Extras without which no search is possible; of cpu and gpu it is one."""
SEARCHED = BUNDLE, INDEX = "encoder bundle", "index"
"""What a search reads, made by a run."""
FLAVOURS = ("cpu", "gpu", "onnx-cpu", "onnx-gpu")
"""Extras of which a machine has one of each kind."""
DEVELOPERS = ("dev", "docs", "chart", "bench")
"""Extras that nobody misses outside of the repository."""
CODECS = ("h264", "hevc", "vp9", "av1", "mpeg2video", "mpeg4", "h263", "mjpeg", "prores", "gif")
ASK_SECONDS = 60
QUESTIONS = {
    "onnxruntime": "import onnxruntime as m; say(m.__version__, m.get_available_providers())",
    "av": f"import av as m; say(m.__version__, [c for c in {CODECS!r} if c in m.codecs_available])",
    "decord": "import decord as m; say(m.__version__, [])",
    "yt-dlp": "import yt_dlp.version as m; "
              "from vidseek_media.sources.youtube.javascript import REMEDY, javascript; found = javascript(); "
              "say(m.__version__, [found.in_words(), '' if found.is_whole else REMEDY])",
    "torch": "import torch as m; say(m.__version__, [m.cuda.get_device_name(i) for i in range(m.cuda.device_count())])",
}
_SAY = "import json\ndef say(version, found): print(json.dumps([version, list(found)]))\n"


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order in which they are shown."""

    findings: tuple[Finding, ...]

    @property
    def is_well(self) -> bool:
        """Whether nothing that is needed is missing or broken. A pipeline that has not run yet is no illness."""
        return not any(finding.state == "error" for finding in self.findings)

    @property
    def is_searchable(self) -> bool:
        """Whether the archive has what a search reads: an encoder bundle, and an index that is published."""
        there = {finding.name for finding in self.findings if finding.group == "pipeline" and finding.state == "ok"}
        return self.is_well and there.issuperset(SEARCHED)

    def summary(self) -> list[Finding]:
        """Return the findings for a person: of an extra, all packages that are right, and all that lack, are a line each."""
        lines: dict[str, Finding] = {}
        for one in self.findings:
            is_joined = one.is_package and one.state in ("ok", "missing")
            key = f"{one.group} {one.state}" if is_joined else f"{one.group} {one.name}"
            if not is_joined:
                lines[key] = one
                continue
            before = f"{lines[key].found}, " if key in lines else ""
            found = f"{one.name} {one.found}" if one.state == "ok" else one.name
            lines[key] = Finding(one.group, "packages", one.state, f"{before}{found}", one.remedy)
        return list(lines.values())

    def to_json(self) -> dict[str, Any]:
        """Return the findings as JSON values, for `vidseek doctor --json`."""
        return {"ok": self.is_well, "findings": [vars(finding) for finding in self.findings]}


def examine(archive: Archive, *, asks_hub: bool = False) -> Diagnosis:
    """Look at this Python, its packages, its runtimes, the machine and the archive. Changes nothing.

    Args:
        archive: The archive.
        asks_hub: Whether to ask the model hub for an answer; nothing else here uses a network.
    """
    declared = declared_packages(archive.root)
    wanted = constraints(_constraints(archive.root))
    found = {name: _version(name) for names in declared.values() for name in names}
    return Diagnosis((
        _python(),
        *_flavours(),
        *(one for extra, names in declared.items() if extra not in FLAVOURS
          and (is_checkout() or extra not in DEVELOPERS)
          for one in _extra(extra, names, found, wanted)),
        *_runtimes(),
        *machine(archive),
        *([hub()] if asks_hub else []),
        *_pipeline(archive),
    ))


def declared_packages(root: Path) -> dict[str, list[str]]:
    """Return the packages of each extra, `base` first: from pyproject.toml, or else from the installed distribution."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        groups = {"base": project["dependencies"], **project["optional-dependencies"]}
    except (OSError, tomllib.TOMLDecodeError, KeyError):
        groups = _from_distribution()
    named = {extra: [_name(requirement) for requirement in requirements] for extra, requirements in groups.items()}
    return {extra: [name for name in names if name != "vidseek"] for extra, names in named.items()}


def _constraints(root: Path) -> Path:
    """The versions that were tried together: the archive's own in a repository, else those of the installation."""
    try:
        return root / CONSTRAINTS if (root / CONSTRAINTS).is_file() else code_root(CONSTRAINTS) / CONSTRAINTS
    except ConfigError:
        return root / CONSTRAINTS


def constraints(path: Path) -> dict[str, str]:
    """`name==version` lines of a constraints file, names normalised; empty where there is no file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pinned = (re.match(r"\s*([A-Za-z0-9._-]+)\s*==\s*([^\s;#]+)", line) for line in lines)
    return {_name(match[1]): match[2] for match in pinned if match}


def _from_distribution() -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {"base": []}
    try:
        requirements = metadata.requires("vidseek") or []
    except metadata.PackageNotFoundError:
        return groups
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
        groups.setdefault(extra[1] if extra else "base", []).append(requirement)
    return groups


def _name(requirement: str) -> str:
    match = re.match(r"\s*([A-Za-z0-9._-]+)", requirement)
    if match is None:
        raise ConfigError(f"{requirement!r} is no requirement", code="bad-requirement", remedy="Mend pyproject.toml")
    return re.sub(r"[-_.]+", "-", match[1]).lower()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _install(extra: str) -> str:
    return f"{Path(sys.executable).name} -m {install_command(extra)}"


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    cores = usable_cores()
    return Finding("python", "python", "ok", f"{version}, {cores} cores, {sys.prefix}")


def _flavours() -> list[Finding]:
    """onnxruntime and onnxruntime-gpu write the same module: one overwrites the other, and then neither is whole."""
    cpu, gpu = _version("onnxruntime"), _version("onnxruntime-gpu")
    if cpu and gpu:
        pip = f"{Path(sys.executable).name} -m pip"
        return [Finding(
            "cpu or gpu", "onnxruntime", "error", f"onnxruntime {cpu} and onnxruntime-gpu {gpu} overwrite each other",
            f"{pip} uninstall -y onnxruntime onnxruntime-gpu && {_install('gpu')}   (or cpu)",
        )]
    if cpu or gpu:
        return [Finding("cpu or gpu", "onnxruntime" if cpu else "onnxruntime-gpu", "ok", str(cpu or gpu))]
    return [Finding("cpu or gpu", "onnxruntime", "error", "not installed", f"{_install('cpu')}   (or gpu)")]


def _extra(
    extra: str, names: Iterable[str], found: dict[str, str | None], wanted: dict[str, str]
) -> Iterable[Finding]:
    for name in names:
        version, pin = found[name], wanted.get(name)
        if version is None:
            state: State = "error" if extra in NEEDED else "missing"
            yield Finding(extra, name, state, "not installed", _install(extra), is_package=True)
        elif pin is not None and version.split("+")[0] != pin.split("+")[0]:
            yield Finding(
                extra, name, "note", f"{version}; constraints.txt says {pin}", _install(extra), is_package=True
            )
        else:
            yield Finding(extra, name, "ok", version, is_package=True)


def _runtimes() -> Iterable[Finding]:
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        answers = dict(zip(QUESTIONS, pool.map(_ask, QUESTIONS.values()), strict=True))
    for name, (version, things) in answers.items():
        installed = any(_version(one) for one in (name, f"{name}-gpu"))
        if version is None and not installed:
            continue  # said above, with its remedy
        if version is None:
            needed: State = "error" if name in ("onnxruntime", "av") else "note"
            yield Finding("runtime", name, needed, f"does not import: {things[0]}",
                          f"{Path(sys.executable).name} -m pip install --force-reinstall -c constraints.txt {name}")
        elif name == "onnxruntime":
            yield Finding("runtime", "ONNX Runtime providers", "ok", ", ".join(things))
        elif name == "av":
            lacking = [codec for codec in CODECS if codec not in things]
            yield Finding("runtime", "decoder av", "note" if lacking else "ok",
                          f"{version}: {', '.join(things)}" + (f"; not {', '.join(lacking)}" if lacking else ""))
        elif name == "yt-dlp":
            words, remedy = things
            yield Finding("youtube", "JavaScript for YouTube", "note" if remedy else "ok", words, remedy)
        elif name == "decord":
            yield Finding("runtime", "decoder decord", "ok", f"{version} (optional)")
        else:
            yield Finding("runtime", "torch device", "ok", f"{version}: {', '.join(things) or 'cpu'}")
    yield Finding("runtime", "ffmpeg", "ok", "not needed: the decoders bring their own")
    yield _sandbox()


def _sandbox() -> Finding:
    offered = in_force()
    if offered.is_whole:
        return Finding("runtime", "sandbox of decoders", "ok", offered.in_words())
    return Finding(
        "runtime", "sandbox of decoders", "note",
        f"{offered.in_words()}: uploads are decoded with limits, but not with all of the kernel's rules",
        "Use a kernel of 5.13 or later with Landlock and seccomp; see docs/security.md",
    )


def _ask(question: str) -> tuple[str | None, list[str]]:
    """(version, what it found), or (None, [the reason])."""
    try:
        run = subprocess.run(
            [sys.executable, "-c", _SAY + question], capture_output=True, text=True, timeout=ASK_SECONDS, check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # As this process finds modules.
        )
        version, things = json.loads(run.stdout)
    except subprocess.TimeoutExpired:
        return None, [f"no answer in {ASK_SECONDS} s"]
    except ValueError:
        last = run.stderr.strip().splitlines()
        return None, [last[-1] if last else f"exit code {run.returncode}"]
    return str(version), [str(thing) for thing in things]


def _pipeline(archive: Archive) -> Iterable[Finding]:
    try:
        archive.settings()
        has_params = archive.params.exists()
        yield Finding("pipeline", "params.yaml", "ok" if has_params else "missing",
                      str(archive.params) if has_params else f"not in {archive.root}",
                      "" if has_params else "Go to the folder of the archive, or set VIDSEEK_HOME to it")
    except ConfigError as error:
        yield Finding("pipeline", "params.yaml", "error", error.message, error.remedy)
    yield from _archive_pipeline(archive)
    yield from _backbone(archive)
    yield from _frames(archive)
    bundle = _read(archive.bundle / "encoder.json", "encoder_version")
    yield _made(BUNDLE, bundle, f"encoder_version {bundle}")
    collection = _read(archive.index / "aliases.json", ALIAS, "collection")
    yield from _index(archive, collection)
    if bundle and collection:
        published = _read(archive.index / PurePath(collection).name / "collection.json", "encoder_version")
        if published == bundle:
            yield Finding("pipeline", "versions agree", "ok", f"bundle and index are of {bundle}")
        else:
            yield Finding("pipeline", "versions agree", "error",
                          f"the bundle is of {bundle}, the published index of {published}", "vidseek run")
    uri = archive.tracking_uri()
    local = not os.environ.get("MLFLOW_TRACKING_URI") and not (archive.mlflow).exists()
    yield Finding("pipeline", "MLflow", "missing" if local else "ok", "no runs yet" if local else bare_url(uri),
                  "vidseek run" if local else "")


def _archive_pipeline(archive: Archive) -> Iterable[Finding]:
    """Whether dvc.yaml of a folder that `vidseek init` made is that of the vidseek that is installed."""
    from vidseek.configuration.archive_pipeline import archive_pipeline, is_outside

    path = archive.root / PIPELINE
    if not is_outside(path):
        return
    if path.read_text(encoding="utf-8") == archive_pipeline():
        yield Finding("pipeline", PIPELINE, "ok", "that of this vidseek")
    else:
        yield Finding("pipeline", PIPELINE, "note", "another than this vidseek would write", "vidseek run --renew")


def _backbone(archive: Archive) -> Iterable[Finding]:
    """Check whether a backbone from the hub was fetched, and whether params.yaml pins its commit. Uses no network."""
    try:
        named = str((ParamsFile.read(archive.params).content.get("backbone") or {}).get("name", ""))
        from vidseek_training.hub.cache import cached_commit
        from vidseek_training.hub.names import HubName

        name = HubName.parse(named)
        if name is None or named.startswith("vidseek/") or (archive.root / named).exists():
            return
        commit = cached_commit(name)
    except (ConfigError, AttributeError, ImportError):
        return  # said above, with its remedy
    if commit is None:
        yield Finding("pipeline", "backbone", "missing", f"{named} was not fetched from the model hub",
                      f"vidseek backbone fetch {named}")
    elif not name.is_pinned:
        yield Finding("pipeline", "backbone", "note", f"{named} is fetched at {commit}, and params.yaml does not say so",
                      f"Set backbone.name to {name.at(commit)}")
    else:
        yield Finding("pipeline", "backbone", "ok", named)


def _frames(archive: Archive) -> Iterable[Finding]:
    """Whether frames are kept as large as the backbone takes them, where `ingest` has run."""
    from vidseek.configuration.frame_side import choose_side
    from vidseek.params import load_params

    videos = archive.ingest / "videos.parquet"
    if not archive.params.is_file() or not videos.is_file():
        return
    try:
        params = load_params(archive.params)
        found = choose_side(params.frames.side_px, backbone=params.backbone.name, videos=videos)
        yield Finding("pipeline", "frames", "ok", str(found))
    except VidseekError as error:
        yield Finding("pipeline", "frames", "error", error.message, error.remedy)


def _index(archive: Archive, collection: str | None) -> Iterable[Finding]:
    """Check the embedded index; a server is not asked."""
    from vidseek_retrieval.index.backend import USE_REMEDY
    from vidseek_retrieval.index.open_backend import URL_VARIABLE

    if (url := os.environ.get(URL_VARIABLE)) and not archive.index.exists():
        yield Finding("pipeline", INDEX, "ok", f"on {bare_url(url)}, which was not asked")
        return
    stored = sorted(path.parent.name for path in archive.index.glob("clips-*/collection.json"))
    if collection in stored or not (stored or collection):
        yield _made(INDEX, collection, f"{ALIAS} → {collection}")
    elif collection is None:
        yield Finding("pipeline", INDEX, "error", f"no alias {ALIAS} names any of {', '.join(stored)}", USE_REMEDY)
    else:
        yield Finding("pipeline", INDEX, "error", f"{ALIAS} → {collection}, which is not there", USE_REMEDY)


def _made(name: str, thing: str | None, found: str) -> Finding:
    if thing is None:
        return Finding("pipeline", name, "missing", "not made yet", "vidseek run")
    return Finding("pipeline", name, "ok", found)


def _read(path: Path, *keys: str) -> str | None:
    """Return the text at `keys` of a JSON file, or None where there is none: a broken file is as good as none here."""
    try:
        content = read_json(path)
        for key in keys:
            content = content[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(content)
