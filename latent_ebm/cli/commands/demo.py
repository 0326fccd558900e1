"""``latent-ebm demo``: three priors side by side."""

import argparse

from latent_ebm.cli.commands.options import Commands, add_command, add_seed, positive


def add(commands: Commands) -> None:
    text = "train models with three priors on handwritten digits, compare them, and draw figures"
    command = add_command(commands, "demo", text, "Needs no data and no GPU.")
    command.add_argument(
        "--out",
        default="demo",
        metavar="DIR",
        help="folder for the figures and scores (default: demo)",
    )
    command.add_argument(
        "--epochs",
        type=positive,
        default=40,
        help="passes over the data for each prior (default: 40)",
    )
    add_seed(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from latent_ebm.cli.demo import run_demo
    from latent_ebm.cli.files import check_folder

    run_demo(check_folder(args.out), args.epochs, args.seed)
