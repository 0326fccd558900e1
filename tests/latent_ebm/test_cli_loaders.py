"""Trained parts that a YAML file names: what a checkpoint keeps of their files, and what it opens
again.
"""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from latent_ebm import load
from latent_ebm.autoencoders import PatchPCA, load_autoencoder
from latent_ebm.cli import main
from latent_ebm.cli.checkpoints import load_rule, read_checkpoint
from latent_ebm.cli.inlining import inline
from latent_ebm.data.captions import Captions
from latent_ebm.denoisers import Denoiser, GaussianMixtureDenoiser, Preconditioned
from latent_ebm.distillation import EMDistillation
from latent_ebm.learning import Denoising
from latent_ebm.networks import MLP, DenoiserMLP
from latent_ebm.text import WordTokenizer
from samplers import VPCosine
from tests.latent_ebm.pipelines import write_text_encoder
from tests.latent_ebm.tiny import WORDS, fit, make_config, part, text_to_image, write_words

CHECKPOINT = "run/last.ckpt"
PROMPT = ["--prompt", "red circle", "--num", "1", "--out", "x.npz"]


@pytest.fixture(autouse=True)
def vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WordTokenizer:
    """That of the names and kinds of drawn shapes, in words.json."""
    monkeypatch.chdir(tmp_path)
    return write_words(Captions(kind=1.0))


def named(checkpoint: str = CHECKPOINT) -> str:
    return read_checkpoint(checkpoint)["config"]


def trained() -> Denoising:
    rule, _ = load_rule(CHECKPOINT)
    assert isinstance(rule, Denoising)
    return rule


def test_data_and_conditioner_share_the_words_of_a_file(vocabulary: WordTokenizer) -> None:
    """Also when training goes on, and when the file is gone."""
    config = text_to_image(WORDS)
    config["data"]["init_args"]["captions"] = {"name": 1.0, "kind": 1.0}
    assert fit(config, Path()) == 0
    config["trainer"]["max_steps"] = 5
    assert fit(config, Path(), "--ckpt_path", CHECKPOINT) == 0
    Path("words.json").unlink()
    assert "words.json" not in named()
    rule, data = load_rule(CHECKPOINT)
    assert rule.conditioner.encoder.tokenizer.words == vocabulary.words  # pyright: ignore
    assert data.tokenizer.words == vocabulary.words  # pyright: ignore
    assert data.rule.kind == 1.0  # pyright: ignore
    assert main(["sample", CHECKPOINT, *PROMPT]) == 0
    assert main(["export", CHECKPOINT, "--out", "model"]) == 0
    assert load("model").conditioner.encoder.tokenizer.words == vocabulary.words


def test_a_file_without_words_is_refused_before_training(capsys) -> None:
    Path("words.json").write_text("{}")
    assert fit(text_to_image(WORDS), Path()) == 1
    assert "words.json must hold format 1, max_words and words" in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_checkpoint_opens_no_file_of_words(capsys) -> None:
    """An honest one holds its words."""
    assert fit(text_to_image(WORDS), Path()) == 0
    content = torch.load(CHECKPOINT)
    torch.save({**content, "config": yaml.safe_dump(text_to_image(WORDS))}, "foreign.ckpt")
    assert main(["sample", "foreign.ckpt", *PROMPT]) == 1
    assert "WordTokenizer.load" in capsys.readouterr().err


def test_an_autoencoder_of_a_folder_is_part_of_the_checkpoint() -> None:
    pca = PatchPCA(channels=4, patch=2).fit(torch.rand(20, 3, 8, 8))
    pca.save("pca")
    latents = part("latent_ebm.autoencoders.load_autoencoder", folder="pca")
    assert fit(text_to_image(WORDS, latents=latents, shape=[4, 4, 4]), Path()) == 0
    shutil.rmtree("pca")
    found = trained().latents
    assert isinstance(found, PatchPCA)
    assert torch.equal(found.components, pca.components)
    assert not found.components.requires_grad
    assert main(["sample", CHECKPOINT, *PROMPT]) == 0
    assert main(["export", CHECKPOINT, "--out", "model"]) == 0
    assert torch.equal(load("model").autoencoder.components, pca.components)


def test_a_folder_of_another_object_is_no_autoencoder() -> None:
    from latent_ebm import save

    save(MLP(2, 2, (4,)), "mlp")
    with pytest.raises(ValueError, match="mlp must hold an autoencoder, got a MLP"):
        load_autoencoder("mlp")


def test_models_of_other_libraries_are_opened_again(vocabulary: WordTokenizer, capsys) -> None:
    """Their weights are those of the checkpoint; the folders say what they are."""
    diffusers = pytest.importorskip("diffusers")
    write_text_encoder(Path("pipeline"), vocabulary.words)
    vae = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(4, 4),
        decoder_block_out_channels=(4, 4),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    vae.save_pretrained("pipeline/vae")
    folder: dict[str, Any] = {"folder": "pipeline"}
    config = text_to_image(
        part("latent_ebm.text.load_tokenizer", **folder),
        part("latent_ebm.text.load_text_encoder", **folder),
        dim=16,
        latents=part("latent_ebm.autoencoders.load_autoencoder", **folder),
        shape=[4, 4, 4],
    )
    assert fit(config, Path()) == 0
    assert main(["sample", CHECKPOINT, *PROMPT]) == 0
    weights = load_file("pipeline/text_encoder/model.safetensors")
    save_file(
        {name: value + 1 for name, value in weights.items()},
        "pipeline/text_encoder/model.safetensors",
        {"format": "pt"},
    )
    kept = read_checkpoint(CHECKPOINT)["state_dict"]
    assert all(torch.equal(value, kept[n]) for n, value in trained().state_dict().items())
    shutil.rmtree("pipeline")
    capsys.readouterr()
    assert main(["sample", CHECKPOINT, *PROMPT]) == 1
    assert "pipeline" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("wordllama") is None, reason="needs wordllama")
def test_subwords_come_from_the_package() -> None:
    data = part("latent_ebm.text.SubwordTokenizer", max_tokens=24)
    encoder = part("latent_ebm.text.subword_encoder", max_tokens=24, dim=8, num_heads=2)
    assert fit(text_to_image(data, encoder), Path()) == 0
    assert main(["sample", CHECKPOINT, *PROMPT]) == 0


def test_a_teacher_is_inlined_with_all_that_it_names() -> None:
    node = part("latent_ebm.cli.checkpoints.load_denoiser", checkpoint=CHECKPOINT)
    assert fit(text_to_image(WORDS), Path()) == 0
    tree = inline({"teacher": node, "tokenizer": WORDS})
    assert isinstance(tree, dict)
    assert tree["teacher"]["class_path"].rpartition(".")[2] == "Preconditioned"
    assert tree["tokenizer"]["class_path"] == "latent_ebm.text.WordTokenizer"
    assert issubclass(type(trained().denoiser), Denoiser)


def with_teacher() -> dict[str, Any]:
    """A distillation whose teacher lies in the folder teacher."""
    config = make_config("em", epochs=1)
    loader = part("latent_ebm.cli.checkpoints.load_denoiser", checkpoint="teacher")
    config["model"]["init_args"]["teacher"] = loader
    return config


def save_teacher(hidden: int) -> None:
    Preconditioned(DenoiserMLP(2, [hidden]), VPCosine(-10.0, 10.0)).save("teacher")


def test_a_teacher_that_no_checkpoint_can_hold_is_refused_before_training(capsys) -> None:
    """Its arguments are tensors."""
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    shares, noise = torch.tensor([0.5, 0.5]), VPCosine(-10.0, 10.0)
    GaussianMixtureDenoiser(shares, means, torch.tensor([0.3, 0.5]), noise).save("teacher")
    assert fit(with_teacher(), Path()) == 1
    assert "arguments are numbers" in capsys.readouterr().err
    assert not Path("runs").exists()
    assert not Path("run").exists()


def test_a_teacher_that_changes_during_training_is_kept_as_it_was_trained_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(EMDistillation, "on_train_start", lambda rule: save_teacher(9))
    save_teacher(5)
    assert fit(with_teacher(), Path()) == 0
    config = yaml.safe_load(named())
    network = config["model"]["init_args"]["teacher"]["init_args"]["network"]
    assert network["init_args"]["hidden"] == [5]
