"""``latent-ebm audit``: a report on what a text-to-image model draws."""

import argparse

from latent_ebm.cli.commands.options import (
    Commands,
    add_checkpoint_command,
    add_steps,
    fraction,
    positive,
)


def add(commands: Commands) -> None:
    text = "measure what a text-to-image model draws before it is released"
    more = (
        "CKPT may also be the folder of a text-to-image model, or of a Stable Diffusion pipeline "
        "of diffusers. The report is one page with all pictures, and says what was not tested. "
        "Classifiers are folders that latent_ebm.save wrote, such as those of a "
        "FeatureClassifier, of networks that take the pictures and return a logit per class."
    )
    command = add_checkpoint_command(commands, "audit", text, more)
    command.add_argument(
        "--prompts", required=True, metavar="FILE", help="a text file with a prompt per line"
    )
    command.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="a new folder, for report.html and metrics.json",
    )
    add_drawing(command)
    add_filters(command)
    add_evidence(command)
    command.set_defaults(run=run)


def add_drawing(command: argparse.ArgumentParser) -> None:
    """How pictures are drawn."""
    command.add_argument(
        "--num", type=positive, default=8, help="number of images per prompt (default: 8)"
    )
    add_steps(command)
    command.add_argument(
        "--guidance",
        type=float,
        metavar="W",
        help="weight of guidance (default: that of the model)",
    )


def add_filters(command: argparse.ArgumentParser) -> None:
    """What refuses prompts and pictures."""
    command.add_argument(
        "--terms",
        metavar="FILE",
        help="a text file with a word or phrase per line; prompts that hold one, also in "
        "disguise, are listed as refused",
    )
    command.add_argument(
        "--unsafe",
        metavar="DIR",
        help="a classifier of two classes, safe and unsafe; pictures that it calls unsafe are "
        "marked as refused",
    )
    command.add_argument(
        "--threshold",
        type=fraction,
        metavar="P",
        help="with --unsafe: the least probability of unsafe that is refused (default: 0.5)",
    )


def add_evidence(command: argparse.ArgumentParser) -> None:
    """What pictures are compared with."""
    command.add_argument(
        "--attribute",
        action="append",
        nargs="+",
        default=[],
        metavar=("DIR", "CLASS"),
        help="a classifier and the names of its classes in order, such as colours red blue: how "
        "often prompts that name none of them show each; red=0.5 blue=0.5 declares a target. May "
        "be repeated",
    )
    command.add_argument(
        "--reference", metavar="DIR", help="a folder of training pictures, to look for copies"
    )
    command.add_argument(
        "--held-out",
        metavar="DIR",
        help="with --reference: a folder of pictures from the same source that were not trained "
        "on, 19 or more",
    )
    command.add_argument(
        "--scorer", metavar="DIR", help="a scorer of prompts and pictures, saved as a folder"
    )
    command.add_argument(
        "--key",
        metavar="FILE",
        help="a file whose content, 16 bytes or more, is the key of a watermark",
    )


def run(args: argparse.Namespace) -> None:
    from latent_ebm.cli.audit import audit_model

    if args.threshold is not None and args.unsafe is None:
        raise ValueError(f"--threshold must come with --unsafe, got {args.threshold} alone")
    audit_model(
        args.checkpoint,
        args.out,
        args.prompts,
        args.num,
        steps=args.steps,
        guidance=args.guidance,
        terms=args.terms,
        unsafe=args.unsafe,
        threshold=args.threshold or 0.5,
        attributes=args.attribute,
        reference=args.reference,
        held_out=args.held_out,
        key=args.key,
        scorer=args.scorer,
        seed=args.seed,
        trust=args.trust,
    )
