"""Write the settings in force and digests of the installed code, which the stages of an archive folder depend on."""

from pathlib import Path

from pipelines.stage import run_stage
from vidseek.configuration.archive_pipeline import write_settled


def main() -> str:
    """The settings stage: of archives that `vidseek init` made, not of the repository."""
    return f"{write_settled(Path())} files of settings and code"


if __name__ == "__main__":
    run_stage(main)
