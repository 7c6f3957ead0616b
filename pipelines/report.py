"""One page about all of it, for who did not see it made; with its pictures also in the MLflow run of the champion.

The run gets the page when the proof of its model changes (`proof_of`), not each time that a video comes.
"""

import hashlib

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
    receipt, proof = PATHS.receipts / "report.json", proof_of(archive)
    is_there = bool(run_id) and read_json(receipt) == _receipt(run_id, proof, is_attached=True)
    is_attached = is_there or (bool(run_id) and _attach(run_id, archive))
    write_json(receipt, _receipt(run_id, proof, is_attached=is_attached))
    where = f"MLflow's run {run_id} has {'that of its proof' if is_there else 'it too'}"
    size = f"{path} has {path.stat().st_size / 1000:.0f} kB"
    return f"{size}; {where if is_attached else 'MLflow here has no run of the champion'}"


def proof_of(archive: Archive) -> str:
    """Return 32 hex digits of what the page says of the model: its choice, its evaluation, its pictures."""
    files = [PATHS.selected, PATHS.reports / "evaluate" / "metrics.json", *(path for path, _ in pictures_of(archive))]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()]
    return hashlib.sha256(" ".join([alias_of("archive"), *digests]).encode()).hexdigest()[:32]


def _receipt(run_id: str, proof: str, *, is_attached: bool) -> dict[str, object]:
    return {"run_id": run_id, "attached": is_attached, "proof": proof}


def _attach(run_id: str, archive: Archive) -> bool:
    from vidseek_training.tracking import attach  # mlflow takes seconds

    under = alias_of("archive")
    pictures = [(picture, f"{under}/{picture.parent.parent.name}") for picture, _ in pictures_of(archive)]
    return attach(run_id, [(PATHS.reports / "report.html", under), *pictures])


if __name__ == "__main__":
    run_stage(main)
