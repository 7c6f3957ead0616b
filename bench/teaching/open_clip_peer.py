"""open_clip's ViT-B/32 in a process of its own: told what to run by a line of JSON, it answers with the seconds.

It runs with what `make bench-encode` installs beside the environment, since open_clip wants torchvision, whose wheels are
built for another torch than ours. Two operators are declared for it, which no picture transform calls.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.turns import turn


def main(threads: int) -> None:
    """Serve runs until the other side closes."""
    torch.set_num_threads(threads)
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    logging.disable(logging.WARNING)
    import open_clip  # type: ignore[import-not-found]

    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", pretrained=None)
    runs = runs_of(model.eval(), preprocess, open_clip.get_tokenizer("ViT-B-32"))
    sys.stdout.write(json.dumps({"version": open_clip.__version__}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        run = runs[asked["work"]]
        inputs = inputs_of(asked["work"], asked["batch"])
        with torch.inference_mode():
            seconds = turn(partial(run, inputs))
        sys.stdout.write(json.dumps({"seconds": seconds}) + "\n")
        sys.stdout.flush()


def runs_of(model: Any, preprocess: Callable[[Image.Image], Any], tokenize: Callable[[list[str]], Any]) -> dict[str, Any]:
    """What each kind of work is here. Its texts always have 77 tokens."""
    return {
        "text": model.encode_text,
        "frames": model.encode_image,
        "text, end to end": lambda texts: model.encode_text(tokenize(texts), normalize=True),
        "640 x 360 pictures, end to end": lambda pictures: model.encode_image(
            torch.stack([preprocess(Image.fromarray(picture)) for picture in pictures]), normalize=True
        ),
    }


def inputs_of(work: str, batch: int) -> Any:
    """Random ones of the sizes that the others get."""
    rng = np.random.default_rng(0)
    if work == "text":
        return torch.from_numpy(rng.integers(1, 1000, (batch, 77)))
    if work == "frames":
        return torch.from_numpy(rng.normal(size=(batch, 3, 224, 224)).astype(np.float32))
    if work == "text, end to end":
        return [" ".join(f"word{number}" for number in rng.integers(0, 1000, 14)) for _ in range(batch)]
    return rng.integers(0, 256, (batch, 360, 640, 3), dtype=np.uint8)


if __name__ == "__main__":
    main(int(sys.argv[1]))
