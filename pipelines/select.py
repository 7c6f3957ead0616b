"""Choose the champion by proof, and register it."""

from pipelines.params import load_params
from pipelines.stage import ADAPTERS, CHAMPION, FRAMES, MODELS, PAIRS, RECEIPTS, alias_of, run_stage
from vidseek_training.select import crown, select


def main() -> str:
    """The select stage."""
    params = load_params()
    selected = select(
        ADAPTERS, list(params.train.settings), backbone=params.backbone.name, pairs=PAIRS / "pairs.parquet",
        frames=FRAMES, champion=CHAMPION, out=MODELS / "selected.json", resamples=params.select.resamples,
        seed=params.select.seed,
    )
    crown(selected, RECEIPTS / "registry.json", alias=alias_of("champion"))
    told = [
        f"{each.challenger} against {each.champion}: {each.gain:+.3f} [{each.low:+.3f}, {each.high:+.3f}] in MRR"
        for each in selected.challenges
    ]
    return "; ".join([f"{selected.setting} is champion", *told, *selected.notes])


if __name__ == "__main__":
    run_stage(main)
