"""Train the adapter of one setting."""

import sys

from pipelines.stage import PATHS, run_stage, say
from vidseek.params import load_params
from vidseek_training.fitting.train import train_adapter
from vidseek_training.hub import pinned


def main() -> str:
    """The train stage of the setting named on the command line."""
    params, name = load_params(), sys.argv[1]
    outcome = train_adapter(
        name, params.train.settings[name], backbone=pinned(params.backbone.name), pairs=PATHS.pairs_table,
        frames=PATHS.frames, general=PATHS.general.data if params.general.source else None, out=PATHS.adapters / name,
        report=PATHS.reports / "train" / name, state=PATHS.state, preset=params.train.preset, say=say,
    )
    if not outcome.trained:
        return f"{name} was not trained: {outcome.reason}"
    return f"{name}: {outcome.num_pairs} pairs, {outcome.num_steps} steps, {outcome.seconds:.0f} s"


if __name__ == "__main__":
    run_stage(main)
