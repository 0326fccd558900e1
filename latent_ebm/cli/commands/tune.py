"""``latent-ebm tune``: a text-to-image model learns a subject from a few images."""

import argparse

from latent_ebm.cli.commands.options import Commands, add_checkpoint_command, positive


def add(commands: Commands) -> None:
    text = "teach a text-to-image model a subject, given a few images of it"
    more = (
        "CKPT may also be the folder of a text-to-image model, or of a Stable Diffusion pipeline "
        "of diffusers. The model stays as it is; what it learns is a small file, which draws with "
        "this model alone: latent-ebm sample CKPT --subject FILE --prompt TEXT. Four to six "
        "images are usual; one is enough to begin with."
    )
    command = add_checkpoint_command(commands, "tune", text, more)
    command.add_argument(
        "--images",
        required=True,
        metavar="DIR",
        help="a folder of images of one subject; they are resized to the size of the model",
    )
    command.add_argument(
        "--masks",
        metavar="DIR",
        help="a folder of masks, white where the subject is, with the names of the images "
        "(default: the opacity of images with transparency; else the background is learned too)",
    )
    command.add_argument(
        "--class",
        dest="word",
        required=True,
        metavar="WORD",
        help='what the subject is, such as "dog"; prompts should name it',
    )
    command.add_argument(
        "--out", required=True, metavar="FILE", help="the file to write (.safetensors)"
    )
    add_training(command)
    command.set_defaults(run=run)


def add_training(command: argparse.ArgumentParser) -> None:
    """How the subject is learned."""
    command.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help='what to call an image, with {} for the word, such as "a photo of a {}"; may be '
        "repeated (default: {})",
    )
    command.add_argument(
        "--rows",
        type=positive,
        default=5,
        metavar="N",
        help="number of rows of the subject; every prompt must leave as many of its tokens free "
        "(default: 5)",
    )
    command.add_argument(
        "--steps", type=positive, default=1000, help="training steps (default: 1000)"
    )
    command.add_argument(
        "--refine",
        type=whole,
        default=10,
        metavar="N",
        help="further training steps for each step of the sampler, which then has rows of its "
        "own; 0 for none (default: 10)",
    )


def whole(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer >= 0, got {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> None:
    from latent_ebm.cli.subjects import tune_subject

    tune_subject(
        args.checkpoint,
        args.out,
        args.images,
        args.masks,
        args.word,
        templates=args.template or ["{}"],
        rows=args.rows,
        steps=args.steps,
        refine=args.refine,
        seed=args.seed,
        trust=args.trust,
    )
