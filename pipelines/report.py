"""One page about all of it, for who did not see it made; with its pictures also in the MLflow run of the champion."""


from pipelines.stage import PATHS, alias_of, run_stage
from vidseek.archive import Archive
from vidseek.reports.overview import read_json
from vidseek.reports.report import pictures_of, write_report
from vidseek_media.files.json_files import write_json


def main() -> str:
    """The report stage."""
    archive, path = Archive.here(), PATHS.reports / "report.html"
    write_report(archive, path)
    run_id = str((read_json(PATHS.selected) or {}).get("run_id", ""))
    is_attached = bool(run_id) and _attach(run_id, archive)
    write_json(PATHS.receipts / "report.json", {"run_id": run_id, "attached": is_attached})
    where = f"it is in MLflow's run {run_id} too" if is_attached else "MLflow here has no run of the champion"
    return f"{path} has {path.stat().st_size / 1000:.0f} kB; {where}"


def _attach(run_id: str, archive: Archive) -> bool:
    from vidseek_training.tracking import attach  # torch and mlflow: an archive with the base does without

    under = alias_of("archive")
    pictures = [(picture, f"{under}/{picture.parent.parent.name}") for picture, _ in pictures_of(archive)]
    return attach(run_id, [(PATHS.reports / "report.html", under), *pictures])


if __name__ == "__main__":
    run_stage(main)
