"""Models of published shapes with random weights: for transformers as they are, and as bundles in fp32 and int8."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast, XCLIPConfig, XCLIPModel

from vidseek_training.backbones.base import BackboneSpec
from vidseek_training.backbones.clip import FrameAveragedCLIP
from vidseek_training.backbones.xclip import XCLIP
from vidseek_training.export.onnx_export import write_unproven

FRAMES = 8
_MEAN, _DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def build_clip(folder: Path) -> tuple[CLIPModel, Tokenizer]:
    """A CLIP of the sizes of ViT-B/32, and a bundle of it in `folder`."""
    torch.manual_seed(0)
    config = CLIPConfig()
    config.text_config.bos_token_id, config.text_config.eos_token_id = 1, 3
    config._attn_implementation = "sdpa"
    clip = CLIPModel(config).eval()
    spec, tokenizer = _spec("clip", folder)
    write_unproven(FrameAveragedCLIP(spec, clip), folder, variants=("int8",))
    return clip, tokenizer


def save_for_transformers(clip: CLIPModel, folder: Path) -> None:
    """Write `clip` with its tokenizer and its processor, as transformers and sentence-transformers read one."""
    clip.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=whole_words(), pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<unk>",
        model_max_length=77,
    ).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)


def build_xclip(folder: Path) -> XCLIPModel:
    """An X-CLIP of the sizes of base-patch32, and a bundle of it in `folder`."""
    torch.manual_seed(0)
    config = XCLIPConfig()
    config.text_config.bos_token_id, config.text_config.eos_token_id = 1, 3
    config._attn_implementation = "sdpa"
    xclip = XCLIPModel(config).eval()
    spec, _ = _spec("xclip", folder)
    write_unproven(XCLIP(spec, xclip), folder, variants=("int8",))
    return xclip


def whole_words() -> Tokenizer:
    """A tokenizer of one token a word."""
    vocabulary = {"<pad>": 0, "<start>": 1, "<unk>": 2, "<end>": 3} | {f"word{number}": number + 4 for number in range(1000)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 3)]
    )
    return tokenizer


def spec_of(
    family: str, words: Path, *, dimension: int = 512, context: int = 77, frames: int = FRAMES, side: int = 224
) -> BackboneSpec:
    """Of a model with random weights and CLIP's preprocessing, whose tokenizer.json is `words`."""
    return BackboneSpec(
        family=family, name="random", dimension=dimension, context_length=context, num_frames=frames,
        image_size_px=side, resize="crop", image_mean=_MEAN, image_std=_DEVIATION, pad_id=0, tokenizer=words,
    )


def _spec(family: str, folder: Path) -> tuple[BackboneSpec, Tokenizer]:
    tokenizer, words = whole_words(), folder.with_name(f"{folder.name}-words.json")
    tokenizer.save(str(words))
    return spec_of(family, words), tokenizer
