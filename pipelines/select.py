"""Choose the champion by proof, and register it."""

from dataclasses import asdict

from pipelines.stage import PATHS, alias_of, run_stage
from vidseek.params import load_params
from vidseek_training.evaluation.proof_ledger import LEDGER, lines_of
from vidseek_training.evaluation.select import crown, select
from vidseek_training.hub import pinned


def main() -> str:
    """The select stage."""
    params = load_params()
    selected = select(
        PATHS.adapters, list(params.train.settings), backbone=pinned(params.backbone.name), pairs=PATHS.pairs_table,
        frames=PATHS.frames, champion=PATHS.champion, out=PATHS.selected, resamples=params.select.resamples,
        ledger=PATHS.state / LEDGER, seed=params.select.seed,
    )
    crown(selected, PATHS.receipts / "registry.json", alias=alias_of("champion"))
    return "; ".join([f"{selected.setting} is champion", *lines_of(asdict(selected))])


if __name__ == "__main__":
    run_stage(main)
