"""One page about all of it, for who did not see it made."""

from pipelines.stage import REPORTS, run_stage
from vidseek.archive import Archive
from vidseek.report import write_report


def main() -> str:
    """The report stage."""
    path = REPORTS / "report.html"
    write_report(Archive.here(), path)
    return f"{path} has {path.stat().st_size / 1000:.0f} kB"


if __name__ == "__main__":
    run_stage(main)
