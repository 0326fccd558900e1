"""``latent-ebm sample``: what a trained model generates."""

import argparse

from latent_ebm.cli.commands.options import Commands, add_checkpoint_command, positive


def add(commands: Commands) -> None:
    more = (
        "A folder that latent-ebm export wrote of a latent model may stand in place of CKPT. It "
        "holds no data module: its samples x have the units of the model, in which the columns of "
        "a table are standardised, and no class is asked for."
    )
    command = add_checkpoint_command(commands, "sample", "draw samples from a trained model", more)
    command.add_argument(
        "--num", type=positive, default=64, help="number of samples (default: 64)"
    )
    command.add_argument(
        "--steps",
        type=positive,
        help="for diffusion models: number of steps of the sampler (default: as in training)",
    )
    command.add_argument(
        "--guidance",
        type=float,
        metavar="W",
        help="for diffusion models with classes: draw the classes in turn, with weight W of "
        "classifier-free guidance; 1 is no guidance. Other models with classes draw them in turn "
        "without it",
    )
    command.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="a grid of images (.png), or the array x, with z where a checkpoint has it (.npz)",
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from latent_ebm.cli.inference import sample

    options = {"num_steps": args.steps, "guidance": args.guidance}
    sample(args.checkpoint, args.out, args.num, options, seed=args.seed, trust=args.trust)
