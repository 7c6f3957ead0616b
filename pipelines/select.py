"""Choose the champion by proof, and register it."""

from dataclasses import asdict

from pipelines.params import load_params
from pipelines.stage import ADAPTERS, CHAMPION, FRAMES, MODELS, PAIRS, RECEIPTS, STATE, alias_of, run_stage
from vidseek_training.proof_ledger import LEDGER, lines_of
from vidseek_training.select import crown, select


def main() -> str:
    """The select stage."""
    params = load_params()
    selected = select(
        ADAPTERS, list(params.train.settings), backbone=params.backbone.name, pairs=PAIRS / "pairs.parquet",
        frames=FRAMES, champion=CHAMPION, out=MODELS / "selected.json", resamples=params.select.resamples,
        ledger=STATE / LEDGER, seed=params.select.seed,
    )
    crown(selected, RECEIPTS / "registry.json", alias=alias_of("champion"))
    return "; ".join([f"{selected.setting} is champion", *lines_of(asdict(selected))])


if __name__ == "__main__":
    run_stage(main)
