"""Tiny random models of ``transformers`` and ``diffusers``, in folders as these write them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

LENGTH = 8  # tokens of a prompt, marks included


def write_text_encoder(folder: Path, words: Sequence[str]) -> None:
    """A CLIP model and a tokenizer of ``words``, in ``text_encoder/`` and ``tokenizer/``."""
    transformers = pytest.importorskip("transformers", reason="not installed: transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    marks = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    ids = {word: 4 + i for i, word in enumerate(words)}
    subwords = Tokenizer(models.WordLevel(marks | ids, unk_token="<unk>"))
    subwords.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    frame = [("<s>", 1), ("</s>", 2)]
    subwords.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=frame
    )
    names = dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=subwords, **names, model_max_length=LENGTH
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    ends = dict(vocab_size=4 + len(words), pad_token_id=0, bos_token_id=1, eos_token_id=2)
    config = transformers.CLIPTextConfig(**sizes, **ends, max_position_embeddings=LENGTH)
    transformers.CLIPTextModel(config).save_pretrained(folder / "text_encoder")


def write_pipeline(
    folder: Path,
    words: Sequence[str] = ("red", "blue", "circle"),
    scheduler: Any = None,
    inpainting: bool = False,
) -> None:
    """A whole ``StableDiffusionPipeline`` for pictures of 8 x 8 pixels and latents of 4 x 4, or
    one for ``inpainting``, whose U-Net takes 9 channels.
    """
    diffusers = pytest.importorskip("diffusers", reason="not installed: diffusers")
    write_text_encoder(folder, words)
    torch.manual_seed(1)
    levels, groups = {"block_out_channels": (8, 16), "layers_per_block": 1}, {"norm_num_groups": 4}
    unet = diffusers.UNet2DConditionModel(
        sample_size=4,
        in_channels=9 if inpainting else 4,
        cross_attention_dim=16,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **levels,
        **groups,
    )
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.2,
        **levels,
        **groups,
    )
    transformers = pytest.importorskip("transformers")
    kinds = diffusers.StableDiffusionPipeline, diffusers.StableDiffusionInpaintPipeline
    pipeline = kinds[inpainting](
        vae=vae,
        unet=unet,
        text_encoder=transformers.CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder / "tokenizer"),
        scheduler=scheduler or ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def ddim(**changes: Any) -> Any:
    """The scheduler of Stable Diffusion."""
    diffusers = pytest.importorskip("diffusers", reason="not installed: diffusers")
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    steps = {"steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False}
    return diffusers.DDIMScheduler(**{**betas, **steps, **changes})
