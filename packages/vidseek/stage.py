"""Runs a stage of an archive that `vidseek init` made: `python -m vidseek.stage NAME [ARGUMENT]...`.

The scripts of the stages are no package of their own in an installation: no other program finds a module `pipelines`.
"""

from __future__ import annotations

import runpy
import sys

from vidseek.installation import STAGES, code_root


def main() -> None:
    """Run the script of the stage that the command line names, as if it was called itself."""
    if len(sys.argv) < 2 or not sys.argv[1].isidentifier():
        raise SystemExit("usage: python -m vidseek.stage NAME [ARGUMENT]...")
    root = code_root(STAGES)
    if not (root / STAGES).with_name(f"{sys.argv[1]}.py").is_file():
        raise SystemExit(f"vidseek.stage: there is no stage {sys.argv[1]}")
    sys.path.insert(0, str(root))
    del sys.argv[0]
    runpy.run_module(f"pipelines.{sys.argv[0]}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
