"""``latent-ebm export``: a trained network for other programs."""

import argparse

from latent_ebm.cli.commands.options import Commands, add_checkpoint_command


def add(commands: Commands) -> None:
    text = "write a trained network for programs that do not have this library"
    command = add_checkpoint_command(commands, "export", text)
    command.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help="a file .onnx for a one-step student, which maps noise z to x; or a new folder for "
        "a diffusion model of the library diffusers",
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from latent_ebm.cli.export import run_export

    run_export(args)
