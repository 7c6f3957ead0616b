"""What `bench.service.serve` compares with: FastAPI and transformers in ten lines, without batching."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from tokenizers import Tokenizer
from transformers import CLIPModel

FOLDER = Path(os.environ["BENCH_MODEL"])

torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
model = CLIPModel.from_pretrained(FOLDER).eval()
tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
tokenizer.enable_padding(pad_id=0)
app = FastAPI()


class Texts(BaseModel):
    """A request."""

    texts: list[str]


@app.get("/readyz")
def readyz() -> dict[str, str]:
    """It is up."""
    return {"status": "ready"}


@app.post("/v1/embed/text")
def embed(asked: Texts) -> dict[str, list[list[float]]]:
    """A unit vector for each text."""
    ids = torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(asked.texts)])
    with torch.inference_mode():
        features = model.get_text_features(input_ids=ids).pooler_output
    return {"embeddings": torch.nn.functional.normalize(features, dim=-1).tolist()}
