"""How this vidseek was installed, and the command that installs a part of it that is missing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from vidseek_media.errors import ConfigError

_REPOSITORY = Path(__file__).resolve().parents[2]
"""The repository, where the packages lie in one."""


def is_checkout() -> bool:
    """Whether this is the source repository, and not an installed wheel."""
    return (_REPOSITORY / "pyproject.toml").is_file()


def install_command(extra: str) -> str:
    """Return the pip command that installs an extra beside what is there.

    Args:
        extra: Name of the extra, or `base` for what every installation has.

    Examples:
        >>> "vidseek[ocr]" in install_command("ocr") or ".[ocr]" in install_command("ocr")
        True
    """
    if is_checkout():
        return "pip install -c constraints.txt -e " + ("." if extra == "base" else f"'.[{extra}]'")
    return "pip install " + ("vidseek" if extra == "base" else f"'vidseek[{extra}]'")


def require_module(name: str, extra: str, *, why: str = "") -> None:
    """Check that a library is installed.

    Args:
        name: Import name of the library.
        extra: The extra that installs it.
        why: What asks for it, for the message, such as `ocr.enabled is true`.

    Raises:
        ConfigError: it is not installed; the error names the extra.
    """
    try:
        found = find_spec(name)
    except ModuleNotFoundError:  # the package that it lies in
        found = None
    if found is None:
        said = f"{why}, and {name} is not installed" if why else f"{name} is not installed"
        raise ConfigError(said, code="not-installed", remedy=f"Run `{install_command(extra)}`")
