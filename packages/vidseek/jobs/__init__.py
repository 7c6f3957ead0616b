"""Jobs: what is added to the archive or taken out of it between two runs of `dvc repro`, one after the other."""
