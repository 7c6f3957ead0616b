"""The JavaScript runtime and solver that yt-dlp needs for YouTube: which are installed, and which are needed.

YouTube's pages compute the addresses of media files with a program. yt-dlp runs it with a JavaScript runtime and the scripts
of the package yt-dlp-ejs (https://github.com/yt-dlp/yt-dlp/wiki/EJS). Without them, formats are missing or refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata

from vidseek_media.installing import install_command

RUNTIMES = ("deno", "node", "bun", "quickjs")
"""That yt-dlp can use, in order of preference. deno runs scripts without rights of their own."""
REMEDY = f"Run `{install_command('youtube')}`, which brings deno and yt-dlp-ejs"


@dataclass(frozen=True)
class JavaScript:
    """The runtimes and scripts that yt-dlp finds on this machine."""

    runtimes: tuple[str, ...]
    """Name and version of each that it can use."""
    too_old: tuple[str, ...]
    """Name, version and the version wanted of each that it cannot use."""
    solver: str
    """The version of yt-dlp-ejs; empty where it is not installed."""
    wanted_solver: str
    """The version that this yt-dlp wants; empty where it does not say."""

    @property
    def is_whole(self) -> bool:
        """Whether yt-dlp can run what YouTube's pages want."""
        return bool(self.runtimes) and self._has_solver

    @property
    def _has_solver(self) -> bool:
        """Whether the solver is there; yt-dlp takes another patch version, and no other."""
        return bool(self.solver) and self.solver.split(".")[:2] == (self.wanted_solver or self.solver).split(".")[:2]

    def in_words(self) -> str:
        """Describe what is installed and what is missing, in one line."""
        said = [", ".join(self.runtimes) or f"no JavaScript runtime (wanted one of {', '.join(RUNTIMES)})"]
        said += [f"too old: {each}" for each in self.too_old]
        if self._has_solver:
            said.append(f"yt-dlp-ejs {self.solver}")
        else:
            said.append(f"yt-dlp-ejs {self.solver or 'is missing'}, wanted {self.wanted_solver or 'one'}")
        return "; ".join(said)


def javascript() -> JavaScript:
    """Ask yt-dlp, which must be installed, what it can use. Each runtime is started once to get its version."""
    import yt_dlp
    from yt_dlp.dependencies import yt_dlp_ejs
    from yt_dlp.globals import supported_js_runtimes

    assert yt_dlp  # Importing it fills `supported_js_runtimes`.
    usable: list[str] = []
    too_old: list[str] = []
    for name in RUNTIMES:
        kind = supported_js_runtimes.value.get(name)
        found = kind().info if kind else None
        if found is not None and found.supported:
            usable.append(f"{found.name} {found.version}")
        elif found is not None:
            too_old.append(f"{found.name} {found.version}, wanted {'.'.join(map(str, kind.MIN_SUPPORTED_VERSION))}")
    return JavaScript(tuple(usable), tuple(too_old), str(getattr(yt_dlp_ejs, "version", "")), _wanted_solver())


def _wanted_solver() -> str:
    try:
        requirements = metadata.requires("yt-dlp") or []
    except metadata.PackageNotFoundError:
        return ""
    found = (re.match(r"yt[-_]dlp[-_]ejs\s*==\s*([\w.]+)", requirement) for requirement in requirements)
    return next((match[1] for match in found if match), "")
