"""Tiny trainings for the tests of the command line."""

from pathlib import Path
from typing import Any

import torch
import yaml

from latent_ebm.cli import main
from latent_ebm.data import Emoji
from latent_ebm.data.captions import Captions
from latent_ebm.text import WordTokenizer

PLAIN = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]

QUIET: dict[str, Any] = {  # a trainer on the CPU that shows and keeps nothing
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "accelerator": "cpu",
}


def part(class_path: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}


WORDS = part("latent_ebm.text.WordTokenizer.load", path="words.json")


def write_words(captions: Captions | None = None) -> WordTokenizer:
    """The tokenizer of ``captions`` of drawn shapes, which it writes to words.json."""
    data = Emoji(source="shapes", side=8, captions=captions)
    data.setup()
    assert isinstance(data.tokenizer, WordTokenizer)
    data.tokenizer.save("words.json")
    return data.tokenizer


def langevin(num_steps: int, step_size: float = 0.05) -> dict[str, Any]:
    return part("samplers.Langevin", step_size=step_size, num_steps=num_steps)


def energy() -> dict[str, Any]:
    return part("latent_ebm.networks.EnergyMLP", dim=2, hidden=[8])


def make_config(rule: str, epochs: int = 2) -> dict[str, Any]:
    """A tiny run of ``mle`` with persistent chains, ``ratio`` whose stages close often, ``em`` or
    ``diffusion_gan``.
    """
    if rule == "em":
        return wrap("distillation.EMDistillation", em_distillation(), epochs)
    if rule == "diffusion_gan":
        return wrap("learning.DiffusionGAN", diffusion_gan(), epochs)
    base = part("latent_ebm.GaussianPrior", dim=2)
    decoder = part("latent_ebm.networks.MLP", in_dim=2, out_shape=2, hidden=[8])
    if rule == "mle":
        prior = part("latent_ebm.EnergyPrior", network=energy(), base=base, sampler=langevin(3))
        more = {"prior_chains": part("samplers.PersistentChains", num_chains=30, event_shape=2)}
    else:
        prior = part("latent_ebm.RatioPrior", base=base, stages=[], sampler=langevin(3))
        stages = {
            "patience": 1,
            "min_drop": 1.0,
            "tolerance": 0.0,
            "max_stages": 8,
            "refresh": langevin(1),
        }
        more = {"stages": {"ratio": energy(), "dim": 2, "pool_size": 50, **stages}}
    chains = part("samplers.PersistentChains", num_chains=100, event_shape=2)
    rule_args = {
        "model": part(
            "latent_ebm.LatentModel",
            prior=prior,
            likelihood=part("latent_ebm.GaussianLikelihood", decoder=decoder, scale=0.3),
        ),
        "posterior": part("latent_ebm.MCMCPosterior", sampler=langevin(3), start=chains),
        "inference": part("latent_ebm.MCMCPosterior", sampler=langevin(5)),
        "optimizer": part("torch.optim.Adam", lr=0.01),
        **more,
    }
    name = {"mle": "ShortRunMLE", "ratio": "MultiStageRatio"}[rule]
    return wrap(f"learning.{name}", rule_args, epochs)


def em_distillation() -> dict[str, Any]:
    """An exact teacher, a perceptron for student, and a network to follow it."""
    schedule = part("samplers.VPCosine", log_snr_min=-10.0, log_snr_max=10.0)
    numbers = {"weights": [0.5, 0.5], "means": [[-1.0, 0.0], [1.0, 0.0]], "scales": [0.3, 0.5]}
    network = part("latent_ebm.networks.DenoiserMLP", shape=2, hidden=[8])
    return {
        "teacher": part(
            "latent_ebm.denoisers.GaussianMixtureDenoiser", **numbers, schedule=schedule
        ),
        "student": part("latent_ebm.networks.MLP", in_dim=2, out_shape=2, hidden=[8]),
        "fake": part("latent_ebm.denoisers.Preconditioned", network=network, schedule=schedule),
        "latent_shape": 2,
        "sampler": langevin(3),
        "student_every": 2,
        "optimizer": part("torch.optim.Adam", lr=0.01),
    }


def diffusion_gan() -> dict[str, Any]:
    """Two perceptrons, one of which counts batches for its penalty."""
    generator = part("latent_ebm.networks.DenoiserMLP", shape=4, hidden=[8])
    critic = part("latent_ebm.networks.MLP", in_dim=5, out_shape=1, hidden=[8])
    return {
        "generator": part("latent_ebm.networks.WithLatent", network=generator),
        "critic": part("latent_ebm.networks.Critic", network=critic),
        "schedule": part("samplers.VPLinear"),
        "shape": [2],
        "latent_shape": [2],
        "penalty_every": 3,
        "optimizer": part("torch.optim.Adam", lr=0.01),
    }


def text_to_image(
    tokenizer: dict[str, Any], encoder: dict[str, Any] | None = None, dim: int = 8, **more: Any
) -> dict[str, Any]:
    """A run of three steps on drawn shapes of 8 x 8 pixels, whose captions are split by
    ``tokenizer`` and encoded in ``dim`` dimensions; ``more`` are arguments of ``Denoising``.
    """
    noise = part("samplers.VPCosine", log_snr_min=-7.0)
    shape = more.get("shape", [3, 8, 8])
    switches = {"self_attention": [False], "cross_attention": [True], "text_map": True}
    network = part(
        "latent_ebm.networks.MobileUNet",
        **{"shape": shape, "text_dim": dim, "channels": [8], "depth": [1], "transformers": [1]},
        **switches,
    )
    encoder = encoder or part("latent_ebm.text.TextTransformer", tokenizer=tokenizer, dim=dim)
    rule = {
        "denoiser": part("latent_ebm.denoisers.Preconditioned", network=network, schedule=noise),
        "reverse": part("samplers.DDIM", schedule=noise, num_steps=2),
        "shape": shape,
        "optimizer": part("torch.optim.Adam", lr=0.01),
        "conditioner": part("latent_ebm.text.TextConditioner", encoder=encoder),
        **more,
    }
    data = {"source": "shapes", "side": 8, "batch_size": 32, "tokenizer": tokenizer}
    config = wrap("learning.Denoising", rule, 1)
    config["trainer"] |= {"max_steps": 3, "max_epochs": -1, "logger": False}
    return {**config, "data": part("latent_ebm.data.Emoji", **data)}


def wrap(name: str, rule_args: dict[str, Any], epochs: int) -> dict[str, Any]:
    """A run of the rule ``latent_ebm.{name}`` on points of the plane."""
    checkpoint = {"dirpath": "run", "filename": "last", "enable_version_counter": False}
    callback = part(
        "lightning.pytorch.callbacks.ModelCheckpoint", save_on_train_epoch_end=True, **checkpoint
    )
    return {
        "seed_everything": 0,
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": epochs,
            "log_every_n_steps": 5,
            "callbacks": [callback],
        },
        "model": part(f"latent_ebm.{name}", **rule_args),
        "data": part("latent_ebm.data.Toy2D", num=100, batch_size=20),
    }


def write(config: dict[str, Any], folder: Path) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def fit(config: dict[str, Any], folder: Path, *arguments: str) -> int:
    return main(["fit", "--config", write(config, folder), *PLAIN, *arguments])


def tensors(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
