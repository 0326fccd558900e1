"""Tiny random models of ``transformers`` and ``diffusers``, in folders as these write them."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch


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
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=subwords, **names)
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    ends = dict(vocab_size=4 + len(words), pad_token_id=0, bos_token_id=1, eos_token_id=2)
    config = transformers.CLIPTextConfig(**sizes, **ends, max_position_embeddings=8)
    transformers.CLIPTextModel(config).save_pretrained(folder / "text_encoder")
