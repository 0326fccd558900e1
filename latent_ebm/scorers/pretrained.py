"""CLIP models of ``transformers`` as scorers, from local folders. Nothing is downloaded or
unpickled.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn
from torch.nn.functional import normalize

from latent_ebm.scorers.base import Scorer
from latent_ebm.subjects.pretrained import Colours, read_pictures, resized
from latent_ebm.text.pretrained import PretrainedTokenizer, load_tokenizer
from samplers.checks import check_counts


class PretrainedScorer(Scorer):
    """The two towers of a ``CLIPModel`` of ``transformers``, always in evaluation mode.

    Whole pictures are resized; nothing is cropped. Source: Radford et al. 2021, arXiv:2103.00020.

    Args:
        tokenizer: What turns prompts into ids.
        model: The ``CLIPModel``.
        side: Pixels of a side of the pictures that it sees.
        colours: Puts colours into the units of the model.
    """

    def __init__(
        self, tokenizer: PretrainedTokenizer, model: nn.Module, side: int, colours: Colours
    ) -> None:
        super().__init__()
        check_counts(self, side=side)
        self.tokenizer, self.model = tokenizer, model.eval()
        self.side, self.colours = side, colours

    def image_features(self, x: Tensor) -> Tensor:
        """Unit vectors (n, dim) of pictures ``x`` (n, 3, H, W) in [-1, 1]."""
        seen = resized(self.colours(x), (self.side, self.side))
        pooled = self.model.get_submodule("vision_model")(pixel_values=seen)[1]
        return normalize(self.model.get_submodule("visual_projection")(pooled))

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors (n, dim) of prompts. Raises ``ValueError`` for prompts that the tokenizer
        refuses.
        """
        with self.colours.mean.device:
            tokens = self.tokenizer(prompts)
        mask = self.tokenizer.shown(tokens).long()
        encoder = self.model.get_submodule("text_model")
        pooled = encoder(input_ids=tokens, attention_mask=mask)[1]
        return normalize(self.model.get_submodule("text_projection")(pooled))

    def train(self, mode: bool = True) -> "PretrainedScorer":
        """Stays in evaluation mode."""
        return super().train(False)


def load_scorer(folder: str | os.PathLike[str]) -> PretrainedScorer:
    """The scorer in a folder of ``transformers``, frozen: a ``CLIPModel`` and its tokenizer.

    Colours and the side are those of its ``preprocessor_config.json``, if there is one.

    Args:
        folder: A folder with ``config.json``, weights as .safetensors, and the tokenizer's files.

    Raises:
        ImportError: Without the package ``transformers``.
        FileNotFoundError: If the configuration of the model is missing.
        ValueError: If the folder holds another model, or weights are missing or do not fit.
    """
    model, side, colours = read_pictures(Path(folder).expanduser())
    if not hasattr(model, "visual_projection") or not hasattr(model, "text_projection"):
        raise ValueError(f"{folder} must hold a CLIPModel, got a {type(model).__name__}")
    scorer = PretrainedScorer(load_tokenizer(folder), model, side, colours)
    return scorer.requires_grad_(False)
