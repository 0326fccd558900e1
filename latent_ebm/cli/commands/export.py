"""``latent-ebm export``: what a checkpoint has trained, without the training."""

import argparse

from latent_ebm.cli.commands.options import Commands, add_checkpoint_command


def add(commands: Commands) -> None:
    text = "write what a checkpoint has trained, for latent_ebm.load or for other programs"
    command = add_checkpoint_command(commands, "export", text)
    command.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help="a new folder, which latent_ebm.load reads; or a file .onnx for a one-step student, "
        "which maps noise z to x, for programs that do not have this library",
    )
    command.add_argument(
        "--diffusers",
        action="store_true",
        help="write the folder for the library diffusers; for diffusion models whose network is "
        "one of diffusers. A text-to-image model becomes a whole pipeline, and CKPT may be its "
        "folder",
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from latent_ebm.cli.export import run_export

    run_export(args)
