"""A bundle small enough to reason about: a clip's vector is its mean colour, and so is that of the colour's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from vidseek_encoder.bundle import EncoderSpec

CONTEXT, FRAMES, SIDE, DIMENSION = 6, 2, 8, 4
VOCABULARY = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "red": 4, "green": 5, "blue": 6, "white": 7}
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def write_tiny_bundle(
    folder: Path, *, encoder_version: str = "0123456789abcdef", frame: bool = False, beside: bool = False, **changes: object
) -> EncoderSpec:
    """Write a bundle into `folder`, which sees frames one by one if `frame` and has weights beside its models if `beside`;
    `changes` go into its spec."""
    (folder / "fp32").mkdir(parents=True)
    vision = "frame" if frame else "video"
    for name, model in {vision: _vision_model(vision), "text": _text_model()}.items():
        onnx.save(
            model, folder / "fp32" / f"{name}.onnx", save_as_external_data=beside, location=f"{name}.onnx.data",
            size_threshold=64,
        )
    _tokenizer().save(str(folder / "tokenizer.json"))
    arguments: dict[str, object] = {
        "family": "tiny",
        "encoder_version": encoder_version,
        "context_length": CONTEXT,
        "num_frames": FRAMES,
        "image_size_px": SIDE,
        "resize": "squash",
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
        "dimension": DIMENSION,
        "pad_id": 0,
        "backbone": "tiny",
        "variants": ("fp32",),
        "vision": vision,
    }
    return EncoderSpec(**{**arguments, **changes}).save(folder)  # type: ignore[arg-type]


def clip_of(
    colour: tuple[int, int, int], *, frames: int = FRAMES, height: int = SIDE, width: int = SIDE
) -> NDArray[np.uint8]:
    """A clip of one colour, (frames, height, width, 3)."""
    return np.full((frames, height, width, 3), colour, dtype=np.uint8)


def colour_vector(colour: tuple[int, int, int]) -> NDArray[np.float32]:
    """What the bundle says of a clip of this colour, by arithmetic."""
    values = np.append(np.asarray(colour, dtype=np.float32) / 255 * 2 - 1, np.float32(0.1))
    return (values / np.linalg.norm(values)).astype(np.float32)


def _vision_model(vision: str) -> onnx.ModelProto:
    # The mean over frames and pixels, and a small constant that keeps grey from having no length.
    output = f"{vision}_embeds"
    nodes = [
        helper.make_node("ReduceMean", ["pixel_values", "axes"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "widen"], ["wide"]),
        helper.make_node("Add", ["wide", "constant"], ["shifted"]),
        helper.make_node("LpNormalization", ["shifted"], [output], axis=1, p=2),
    ]
    constants = {
        "axes": np.array([1, 3, 4] if vision == "video" else [2, 3], dtype=np.int64),
        "widen": np.eye(3, DIMENSION, dtype=np.float32),
        "constant": np.array([0, 0, 0, 0.1], dtype=np.float32),
    }
    shape = [FRAMES, 3, SIDE, SIDE] if vision == "video" else [3, SIDE, SIDE]
    return _model(nodes, constants, "pixel_values", TensorProto.FLOAT, shape, output)


def _text_model() -> onnx.ModelProto:
    table = np.zeros((len(VOCABULARY), DIMENSION), dtype=np.float32)
    table[:, 3] = 0.1 / CONTEXT
    for name, colour in COLOURS.items():
        table[VOCABULARY[name], :3] = np.asarray(colour) / 255 * 2 - 1
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["tokens"]),
        helper.make_node("ReduceSum", ["tokens", "axes"], ["sum"], keepdims=0),
        helper.make_node("LpNormalization", ["sum"], ["text_embeds"], axis=1, p=2),
    ]
    constants = {"table": table, "axes": np.array([1], dtype=np.int64)}
    return _model(nodes, constants, "input_ids", TensorProto.INT64, [CONTEXT], "text_embeds")


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[np.generic]],
    input_name: str,
    input_type: int,
    shape: list[int],
    output_name: str,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(input_name, input_type, ["batch", *shape])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["batch", DIMENSION])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", VOCABULARY["<s>"]), ("</s>", VOCABULARY["</s>"])]
    )
    return tokenizer
