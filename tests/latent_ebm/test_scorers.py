"""Scorers: cosines of prompts and pictures, by a small model and by a tiny random CLIP model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latent_ebm.data.base import make_generator
from latent_ebm.networks import ResidualEncoder
from latent_ebm.scorers import ContrastiveScorer, load_scorer
from latent_ebm.text import TextTransformer, WordTokenizer
from tests.latent_ebm.pipelines import LENGTH, write_text_encoder

PROMPTS = ["red", "red blue", ""]


def pictures(num: int = 3, side: int = 16) -> Tensor:
    return torch.rand(num, 3, side, side, generator=make_generator(7)) * 2 - 1


def small(**arguments: int) -> ContrastiveScorer:
    torch.manual_seed(0)
    text = TextTransformer(WordTokenizer(["red", "blue"], max_words=3), 8, 1, 2)
    return ContrastiveScorer(ResidualEncoder(3, 2), text, **{"image_dim": 8, **arguments}).eval()


def test_pairs_have_the_cosines_of_their_vectors() -> None:
    score, x = small(dim=5), pictures()
    image, text = score.image_features(x), score.text_features(PROMPTS)
    assert image.shape == text.shape == (3, 5)
    for vectors in (image, text):
        assert torch.allclose(vectors.norm(dim=1), torch.ones(3))
    table = score.score_matrix(PROMPTS, x[:2])
    assert table.shape == (3, 2)
    assert torch.allclose(table[2, 1], text[2] @ image[1], atol=1e-6)
    assert torch.allclose(score(PROMPTS, x)[:2], table.diagonal(), atol=1e-6)


def test_text_is_averaged_over_its_tokens_alone() -> None:
    """Padding, whose number depends on the longest prompt that is allowed, has no weight."""
    score = small()
    text, mask = score.text_encoder(score.text_encoder.tokenizer(["red blue"]))
    mean = score.text_map(text[0][mask[0]].mean(0))
    assert not mask.all()
    assert torch.allclose(score.text_features(["red blue"])[0], mean / mean.norm(), atol=1e-6)


def test_odd_input_is_refused() -> None:
    with pytest.raises(ValueError, match="prompts must be one per picture, 3, got 2"):
        small()(PROMPTS[:2], pictures())
    with pytest.raises(ValueError, match="number of features of image_encoder, 8, got 9"):
        small(image_dim=9).image_features(pictures())
    with pytest.raises(ValueError, match="dim must be an integer >= 1, got 0"):
        small(dim=0)
    with pytest.raises(ValueError, match="text_encoder must be a TextEncoder, got"):
        ContrastiveScorer(nn.Flatten(), nn.Flatten(), 8)  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------------------------
# models of transformers


def write_clip(folder: Path) -> Any:
    """A ``CLIPModel`` and its tokenizer, in one folder, as CLIP comes."""
    transformers = pytest.importorskip("transformers", reason="not installed: transformers")
    write_text_encoder(folder, ["red", "blue"])
    for path in (folder / "tokenizer").iterdir():
        path.rename(folder / path.name)
    (folder / "tokenizer").rmdir()
    text = transformers.CLIPTextConfig.from_pretrained(folder / "text_encoder").to_dict()
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sizes, "intermediate_size": 8, "image_size": 16, "patch_size": 8}
    torch.manual_seed(1)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    )
    model.save_pretrained(folder)
    return model.eval()


def test_scores_are_those_of_the_saved_clip_model(tmp_path: Path) -> None:
    model, x = write_clip(tmp_path), pictures()
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    score = load_scorer(tmp_path).train()
    tokens = score.tokenizer(PROMPTS)
    with torch.no_grad():
        made = model(
            input_ids=tokens, attention_mask=score.tokenizer.shown(tokens).long(), pixel_values=x
        )
    assert torch.allclose(score.image_features(x), made.image_embeds, atol=1e-5)
    assert torch.allclose(score.text_features(PROMPTS), made.text_embeds, atol=1e-5)
    expected = made.logits_per_text / model.logit_scale.exp()
    assert torch.allclose(score.score_matrix(PROMPTS, x), expected, atol=1e-5)
    assert score.tokenizer.max_tokens == LENGTH
    assert not any(parameter.requires_grad for parameter in score.parameters())


def test_the_longest_prompt_is_that_of_the_model(tmp_path: Path) -> None:
    """Also where the tokenizer does not say."""
    write_clip(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(path.read_text().replace(f'"model_max_length": {LENGTH}', '"a": 0'))
    assert load_scorer(tmp_path).tokenizer.max_tokens == LENGTH


def test_folders_of_other_models_are_refused(tmp_path: Path) -> None:
    write_clip(tmp_path)
    with pytest.raises(ValueError, match="must hold a model of images, got a CLIPTextModel"):
        load_scorer(tmp_path / "text_encoder")
    transformers = pytest.importorskip("transformers", reason="not installed: transformers")
    config = transformers.CLIPVisionConfig.from_pretrained(tmp_path)
    transformers.CLIPVisionModel(config).save_pretrained(tmp_path / "vision")
    with pytest.raises(ValueError, match="must hold a CLIPModel, got a CLIPVisionModel"):
        load_scorer(tmp_path / "vision")
