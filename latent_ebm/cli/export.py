"""``latent-ebm export``: what a checkpoint has trained, without the training.

That is a folder that ``latent_ebm.load`` reads, or for programs that do not have this library an
ONNX file, a folder of ``diffusers``, or a page for browsers. Where a training averages its
weights, the averages are written: they are the weights of its checkpoints.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from torch import nn

from latent_ebm import save
from latent_ebm.applications import TextToImage
from latent_ebm.applications.trained import inpainter, text_to_image
from latent_ebm.cli.applications import read_model
from latent_ebm.cli.checkpoints import applied, load_rule
from latent_ebm.cli.files import check_apart, check_folder, check_new, check_output
from latent_ebm.conditions import Conditioner
from latent_ebm.distillation import OneStep, Progressive, UFOGen
from latent_ebm.distillation.base import ScoreDistiller
from latent_ebm.export import export_diffusers, export_onnx, export_page, export_pipeline
from latent_ebm.learning import (
    Autoencoding,
    Denoising,
    ScoreMatching,
    SelfAdversarial,
    SupervisedContrast,
    TextImageContrast,
    VICReg,
)
from latent_ebm.learning.adversarial import AdversarialRule
from latent_ebm.learning.base import LearningRule
from latent_ebm.learning.latent import LatentRule

TRAINED: dict[type[LearningRule], str] = {  # the attribute that holds what a rule trains
    LatentRule: "model",
    Denoising: "denoiser",
    ScoreDistiller: "student",
    Progressive: "student",
    AdversarialRule: "generator",
    SelfAdversarial: "ebm",
    ScoreMatching: "ebm",
    VICReg: "encoder",
    SupervisedContrast: "encoder",
    TextImageContrast: "scorer",
    Autoencoding: "autoencoder",
}


def run_export(args: argparse.Namespace) -> None:
    """Write what a checkpoint has trained in the form that ``args`` ask for."""
    for name in ("steps", "guidance", "runtime"):
        if args.web is None and (value := getattr(args, name)) is not None:
            raise ValueError(f"--{name} must come with --web, got {value!r} alone")
    if args.web is not None:
        write_page(args)
        return
    if Path(args.out).suffix:
        write_onnx(args)
        return
    check_new(check_folder(args.out))
    if args.diffusers:
        write_diffusers(args)
        return
    rule, _ = load_rule(args.checkpoint, args.trust)
    with applied(args.checkpoint):
        whole = text_to_image(rule) or inpainter(rule)
        found = trained(rule) if whole is None else whole
        save(found, args.out)
        print(f"{type(found).__name__}, to be read by latent_ebm.load: {args.out}")
        conditioner = getattr(rule, "conditioner", None) if whole is None else None
        if isinstance(conditioner, Conditioner) and any(True for _ in conditioner.parameters()):
            name = type(conditioner).__name__
            print(f"the {name} of the checkpoint, which has weights too, is left out")


def write_diffusers(args: argparse.Namespace) -> None:
    """A folder of ``diffusers``: a pipeline if the source is a text-to-image model, else U-Net and
    scheduler.
    """
    if Path(args.checkpoint).is_dir():
        whole, rule = TextToImage.load(args.checkpoint), None
    else:
        rule, _ = load_rule(args.checkpoint, args.trust)
        whole = text_to_image(rule)
    with applied(args.checkpoint):
        if whole is not None:
            export_pipeline(whole, args.out)
            print(f"StableDiffusionPipeline: {args.out}")
        elif rule is not None:
            export_diffusers(denoiser(rule), args.out)
            print(f"unet and scheduler: {args.out}")


def write_onnx(args: argparse.Namespace) -> None:
    """A one-step student as a file ``.onnx``."""
    out = check_output(args.out, (".onnx",))
    check_apart([out], [args.checkpoint])
    rule, _ = load_rule(args.checkpoint, args.trust)
    student, latent_shape = one_step(rule)
    with applied(args.checkpoint):
        export_onnx(student, latent_shape, out)
    print(f"input z (batch, {', '.join(map(str, latent_shape))}), output x: {out}")


def write_page(args: argparse.Namespace) -> None:
    """A page that draws with a text-to-image model."""
    if args.diffusers:
        raise ValueError(f"--diffusers must come with --out, got --web {args.web!r}")
    out = check_new(check_folder(args.web, "--web"), "--web")
    model = read_model(args.checkpoint, out, args.trust)
    steps = args.steps or model.sampler.num_steps
    drawing = TextToImage(
        model.conditioner,
        model.denoiser,
        replace(model.sampler, num_steps=steps),
        model.shape,
        model.guidance if args.guidance is None else args.guidance,
        model.autoencoder,
        model.weights,
    )
    with applied(args.checkpoint):
        export_page(drawing, out, args.runtime)
    print(f"page, to be served by `python -m http.server -d {out}`: {out}")


def trained(rule: LearningRule) -> nn.Module:
    """What ``rule`` has trained. Raises ``ValueError`` if this is not known."""
    for kind, name in TRAINED.items():
        if isinstance(rule, kind):
            return getattr(rule, name)
    raise ValueError(
        f"the checkpoint must be of a rule of this library to be exported, got "
        f"{type(rule).__name__}: save its parts with latent_ebm.save"
    )


def one_step(rule: LearningRule) -> tuple[nn.Module, tuple[int, ...]]:
    """The map from noise z to x that ``rule`` has trained, and the shape of z. Raises
    ``ValueError`` if there is none.
    """
    if text_to_image(rule) is not None:
        raise ValueError(
            f"the checkpoint must hold a student without prompts to be written as .onnx, got "
            f"{type(rule).__name__} with a text encoder: use --web, or "
            "latent_ebm.export.export_text_to_image"
        )
    if isinstance(rule, ScoreDistiller):
        return rule.student, rule.latent_shape
    if isinstance(rule, UFOGen):
        return OneStep(rule.generator, rule.schedule.log_snr_range[0]), rule.shape
    raise ValueError(
        "the checkpoint must hold a one-step student to be written as .onnx, got "
        f"{type(rule).__name__}"
    )


def denoiser(rule: LearningRule) -> nn.Module:
    """The denoiser that ``rule`` has trained. Raises ``ValueError`` if there is none."""
    if not isinstance(rule, Denoising | Progressive | UFOGen):
        raise ValueError(
            "the checkpoint must hold a denoiser to be written for diffusers, got "
            f"{type(rule).__name__}"
        )
    return trained(rule)
