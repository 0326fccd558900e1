"""``latent-ebm evaluate``: metrics on held-out data."""

import argparse

from latent_ebm.cli.commands.options import Commands, add_checkpoint_command


def add(commands: Commands) -> None:
    text = "metrics of a trained model on the held-out part of its own data"
    command = add_checkpoint_command(commands, "evaluate", text)
    command.add_argument(
        "--out", default="evaluation", metavar="DIR", help="folder to write (default: evaluation)"
    )
    command.add_argument(
        "--quick", action="store_true", help="fewer samples, shorter chains, no figures"
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from latent_ebm.cli.inference import evaluate

    evaluate(args.checkpoint, args.out, args.quick, seed=args.seed, trust=args.trust)
