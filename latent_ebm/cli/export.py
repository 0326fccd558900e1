"""``latent-ebm export``: trained networks as files for programs without this library."""

import argparse
from pathlib import Path

from torch import nn

from latent_ebm.cli.checkpoints import applied, load_rule
from latent_ebm.cli.files import check_apart, check_folder, check_new, check_output
from latent_ebm.distillation import OneStep, Progressive, UFOGen
from latent_ebm.distillation.base import ScoreDistiller
from latent_ebm.export import export_diffusers, export_onnx
from latent_ebm.learning import Denoising
from latent_ebm.learning.base import LearningRule


def run_export(args: argparse.Namespace) -> None:
    """A one-step student to a file ``.onnx``, or a denoiser to a folder of ``diffusers``."""
    if not Path(args.out).suffix:
        check_new(check_folder(args.out))
        rule, _ = load_rule(args.checkpoint, args.trust)
        with applied(args.checkpoint):
            export_diffusers(denoiser(rule), args.out)
        print(f"unet and scheduler: {args.out}")
        return
    out = check_output(args.out, (".onnx",))
    check_apart([out], [args.checkpoint])
    rule, _ = load_rule(args.checkpoint, args.trust)
    student, latent_shape = one_step(rule)
    with applied(args.checkpoint):
        export_onnx(student, latent_shape, out)
    print(f"input z (batch, {', '.join(map(str, latent_shape))}), output x: {out}")


def one_step(rule: LearningRule) -> tuple[nn.Module, tuple[int, ...]]:
    """The map from noise z to x that ``rule`` has trained, and the shape of z. Raises
    ``ValueError`` if there is none.
    """
    if isinstance(rule, ScoreDistiller):
        return rule.student, rule.latent_shape
    if isinstance(rule, UFOGen):
        return OneStep(rule.generator, rule.schedule.log_snr_range[0]), rule.shape  # pyright: ignore[reportArgumentType]
    raise ValueError(
        "the checkpoint must hold a one-step student to be written as .onnx, got "
        f"{type(rule).__name__}"
    )


def denoiser(rule: LearningRule) -> nn.Module:
    """The denoiser that ``rule`` has trained. Raises ``ValueError`` if there is none."""
    for kind, name in ((Denoising, "denoiser"), (Progressive, "student"), (UFOGen, "generator")):
        if isinstance(rule, kind):
            return getattr(rule, name)
    raise ValueError(
        "the checkpoint must hold a denoiser to be written to a folder without suffix, got "
        f"{type(rule).__name__}"
    )
