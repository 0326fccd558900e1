"""``latent-ebm replace``: another subject in the place of one in a picture."""

import argparse

from latent_ebm.cli.commands.options import (
    Commands,
    add_checkpoint_command,
    add_steps,
    share,
)


def add(commands: Commands) -> None:
    text = "put another subject in the place of one in a picture"
    more = (
        "CKPT may also be the folder of a text-to-image model, or of a Stable Diffusion pipeline "
        "of diffusers. The picture is inverted with its caption and drawn again with the new "
        "prompt, which keeps its layout; no mask is needed."
    )
    command = add_checkpoint_command(commands, "replace", text, more)
    add_picture(command)
    add_sampling(command)
    command.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="an image (.png), or the array x (.npz)",
    )
    command.set_defaults(run=run)


def add_picture(command: argparse.ArgumentParser) -> None:
    """The picture, what it shows, and what it is to show."""
    command.add_argument(
        "--image",
        required=True,
        metavar="FILE",
        help="the picture; it is resized to the size of the model",
    )
    command.add_argument(
        "--caption",
        required=True,
        metavar="TEXT",
        help='what the picture shows, such as "a cat on a bench"',
    )
    command.add_argument(
        "--prompt",
        metavar="TEXT",
        help='the same with the new subject, such as "a dog on a bench", in as many words '
        "(default: the caption)",
    )
    command.add_argument(
        "--subject",
        metavar="FILE",
        help="a subject that latent-ebm tune wrote for this model",
    )


def add_sampling(command: argparse.ArgumentParser) -> None:
    """How it is drawn again."""
    command.add_argument(
        "--guidance",
        type=float,
        metavar="W",
        help="weight of guidance, not 1 (default: that of the model; a checkpoint has none)",
    )
    add_steps(command)
    command.add_argument(
        "--kept",
        type=share,
        default=1.0,
        metavar="SHARE",
        help="the share of the steps, from the first one on, that keep the layout (default: 1)",
    )


def run(args: argparse.Namespace) -> None:
    from latent_ebm.cli.subjects import replace_in_picture

    replace_in_picture(
        args.checkpoint,
        args.out,
        args.image,
        args.caption,
        args.caption if args.prompt is None else args.prompt,
        subject=args.subject,
        guidance=args.guidance,
        steps=args.steps,
        kept=args.kept,
        seed=args.seed,
        trust=args.trust,
    )
