"""``latent-ebm inpaint``: a picture whose hole is filled."""

import argparse

from latent_ebm.cli.commands.options import (
    Commands,
    add_checkpoint_command,
    add_steps,
    positive,
)


def add(commands: Commands) -> None:
    more = (
        "CKPT may also be the folder of an inpainter that latent-ebm export wrote, or one of a "
        "Stable Diffusion inpainting pipeline of diffusers. Pictures have the size that the model "
        "draws. Outside of the hole, the result equals the picture."
    )
    text = "fill the hole of a picture with a subject"
    command = add_checkpoint_command(commands, "inpaint", text, more)
    command.add_argument("--image", required=True, metavar="FILE", help="the picture")
    command.add_argument(
        "--mask",
        required=True,
        metavar="FILE",
        help="a picture that is white in the hole and black elsewhere",
    )
    command.add_argument(
        "--reference",
        metavar="FILE",
        help="a picture of the subject; without it, the prompt alone says what to draw",
    )
    command.add_argument("--prompt", required=True, metavar="TEXT", help="what to draw")
    command.add_argument(
        "--num",
        type=positive,
        default=1,
        help="number of pictures, which stand side by side (default: 1)",
    )
    add_steps(command)
    command.add_argument(
        "--guidance",
        type=float,
        metavar="W",
        help="weight of guidance by the prompt; 1 is none (default: that of the model)",
    )
    command.add_argument("--out", required=True, metavar="FILE", help="the picture to write, .png")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from latent_ebm.cli.inpainting import inpaint

    inpaint(
        args.checkpoint,
        args.out,
        args.image,
        args.mask,
        args.reference,
        args.prompt,
        args.num,
        steps=args.steps,
        guidance=args.guidance,
        seed=args.seed,
        trust=args.trust,
    )
