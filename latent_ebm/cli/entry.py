"""The command line: what the sub-commands are called, and where their errors end.

Sub-commands import what they need when they run, so that ``--help`` is quick. ``fit``,
``validate``, ``test`` and ``predict`` are Lightning's and read their own arguments from a YAML
file; the others are declared here.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from latent_ebm.cli.errors import USAGE, report
from latent_ebm.files.limits import MAX_ENTRIES

LIGHTNING = {
    "fit": "train the model of a YAML file",
    "validate": "held-out figures on the validation set of a YAML file",
    "test": "held-out figures on the test set of a YAML file",
    "predict": "a table of energy terms of the test set of a YAML file, beside the checkpoint",
}
SIZE = "resize images of a folder to PIXELS x PIXELS, without keeping their aspect ratio"
DEBUG = "LATENT_EBM_DEBUG"
EPILOG = f"""Results are written when all is computed. They take the place of an older file of their name,
never of one that is read.

The YAML file of fit, validate, test and predict is a program: what it names is imported and run.
A checkpoint is none: nothing in it is run.

exit status: 0 success, 1 an error (one sentence on stderr), 2 wrong usage; for detect also data it cannot use.
With --debug, or {DEBUG}=1 in the environment, an error shows its traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sub-command in ``argv`` (default: the process's arguments) and return the exit
    status.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args or os.environ.get(DEBUG, "0") not in ("", "0")
    args = [expand_home(a) for a in args if a != "--debug"]
    try:
        return run(args)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # which Lightning makes an exit of
            return report(stop.__context__)
        return stop.code if isinstance(stop.code, int) else USAGE if stop.code else 0
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            raise
        return report(error)


def expand_home(argument: str) -> str:
    """``argument``, or its part after ``=``, with ``~`` expanded as a shell would if it saw the
    path by itself.
    """
    option, equals, value = argument.partition("=")
    named = argument.startswith("--") and equals
    return f"{option}={os.path.expanduser(value)}" if named else os.path.expanduser(argument)


def run(args: list[str]) -> int:
    """Hand ``args`` to the sub-command they begin with."""
    if args and args[0] in LIGHTNING:
        from latent_ebm.cli.trainer import run_lightning

        run_lightning(args)
        return 0
    parsed = make_parser().parse_args(args)
    from latent_ebm.cli import commands

    getattr(commands, parsed.command)(parsed)
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of all that is not Lightning's."""
    parser = argparse.ArgumentParser(
        "latent-ebm",
        description="Latent energy-based generative models: train, sample, score, evaluate.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_demo(commands)
    for name, text in LIGHTNING.items():
        commands.add_parser(name, help=text, add_help=False)
    add_sample(commands)
    add_score(commands)
    add_evaluate(commands)
    add_detect(commands)
    add_export(commands)
    add_recipes(commands)
    return parser


def add_demo(commands: argparse._SubParsersAction) -> None:
    text = "train three priors on handwritten digits, compare them, and draw figures"
    demo = commands.add_parser(
        "demo", help=text, description=f"{sentence_case(text)}. Needs no data and no GPU."
    )
    demo.add_argument(
        "--out",
        default="demo",
        metavar="DIR",
        help="folder for the figures and scores (default: demo)",
    )
    demo.add_argument(
        "--epochs",
        type=positive,
        default=40,
        help="passes over the data for every prior (default: 40)",
    )
    demo.add_argument("--seed", type=seed, default=0, help="seed of everything (default: 0)")


def add_sample(commands: argparse._SubParsersAction) -> None:
    sample = add_checkpoint_command(commands, "sample", "draw what a trained model generates")
    sample.add_argument("--num", type=positive, default=64, help="number of samples (default: 64)")
    sample.add_argument(
        "--steps", type=positive, help="diffusion models: steps of the sampler (default: its own)"
    )
    sample.add_argument(
        "--guidance",
        type=float,
        metavar="W",
        help=(
            "diffusion models with classes: these take turns, with weight W of classifier-free "
            "guidance, 1 for none"
        ),
    )
    sample.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="an image grid (.png) or arrays x and z (.npz)",
    )


def add_score(commands: argparse._SubParsersAction) -> None:
    score = add_checkpoint_command(
        commands, "score", "anomaly scores: the terms of the energy of data, high is unusual"
    )
    score.add_argument(
        "data",
        metavar="DATA",
        help="file (.csv, .tsv, .npz, .npy, .parquet) or folder of images, with the shape, units and columns of the training "
        "data; or train, val, test: the data that the checkpoint was trained with",
    )
    score.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help=".csv with columns index (a row's id, else its line in the file, else its number from 0), reconstruction, tilt, "
        "base, joint",
    )
    score.add_argument("--size", type=positive, metavar="PIXELS", help=SIZE)
    add_reading(score)


def add_evaluate(commands: argparse._SubParsersAction) -> None:
    evaluate = add_checkpoint_command(
        commands, "evaluate", "held-out figures of a trained model on its own data"
    )
    evaluate.add_argument(
        "--out", default="evaluation", metavar="DIR", help="folder to write (default: evaluation)"
    )
    evaluate.add_argument(
        "--quick", action="store_true", help="fewer samples, shorter chains, no pictures"
    )


def add_detect(commands: argparse._SubParsersAction) -> None:
    text = "find unusual rows or images, given normal ones"
    files = "a .csv, .tsv, .npz, .npy or .parquet file or a folder of images"
    detect = commands.add_parser(
        "detect", help=text, description=f"{sentence_case(text)}. Needs no trained model."
    )
    detect.add_argument(
        "train", metavar="TRAIN", help=f"normal rows: {files}; or a folder that --save wrote"
    )
    detect.add_argument(
        "--score",
        required=True,
        metavar="NEW",
        help="the rows to judge, in a file or folder like that",
    )
    detect.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help=".csv with columns row (its id, else its line in the file, else its number from 0), "
        "score (low: unusual), p_value, outlier, selected",
    )
    detect.add_argument(
        "--report", metavar="FILE", help="a page (.html) on the most unusual rows and why they are"
    )
    detect.add_argument("--save", metavar="DIR", help="folder to keep the detector in")
    detect.add_argument(
        "--alpha",
        type=fraction,
        default=0.1,
        help="so large a part of normal rows is called an outlier, of the selected ones is a false alarm (default: 0.1)",
    )
    detect.add_argument(
        "--folds",
        type=positive,
        metavar="K",
        help="hold out every normal row once, by K fits without one of K parts each, instead of half of them in one fit: "
        "finds more with few normal rows, but the promise on false alarms is weaker (see the report)",
    )
    detect.add_argument(
        "--image-shape",
        type=positive,
        nargs=3,
        metavar=("C", "H", "W"),
        help="the rows are flat images of this shape",
    )
    detect.add_argument(
        "--max-steps",
        type=positive,
        metavar="N",
        help="images: learn features for at most N steps (default: 1000)",
    )
    detect.add_argument(
        "--encoder",
        metavar="CKPT",
        help="images: take the features of this checkpoint's encoder and learn none",
    )
    detect.add_argument("--size", type=positive, metavar="PIXELS", help=SIZE)
    add_reading(detect)
    energies = ("joint", "reconstruction", "prior", "elbo")
    detect.add_argument(
        "--energy", choices=energies, help="what the score is made of (default: joint)"
    )
    detect.add_argument("--seed", type=seed, default=0, help="seed of everything (default: 0)")


def add_reading(command: argparse.ArgumentParser) -> None:
    """How files of rows are read: the options that ``tables.make_reader`` takes."""
    group = command.add_argument_group(
        "tables",
        "What is not said here is decided by rule and printed: separators, headers, columns of ids.",
    )
    group.add_argument("--id", metavar="COLUMN", help="the column that names the rows, no feature")
    group.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="COLUMN",
        help="a column to leave out; may be repeated",
    )
    group.add_argument(
        "--sep",
        choices=(",", ";", "tab", "space"),
        metavar="SEP",
        help='what is between the cells of a line: "," ";" tab or space',
    )
    group.add_argument(
        "--header", choices=("yes", "no"), help="whether the first line names the columns"
    )
    group.add_argument(
        "--missing",
        choices=("refuse", "drop"),
        default="refuse",
        help="rows with missing values: refuse the file (default), or leave them out and say how many",
    )
    group.add_argument(
        "--max-entries",
        type=positive,
        default=MAX_ENTRIES,
        metavar="N",
        help="rows x columns that a file may hold, to refuse others before they fill the memory (default: %(default)s)",
    )


def add_export(commands: argparse._SubParsersAction) -> None:
    export = add_checkpoint_command(
        commands, "export", "write a trained network for programs without this library"
    )
    export.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help="file .onnx: a one-step student, noise z to x; new folder: a diffusion model of diffusers",
    )


def add_recipes(commands: argparse._SubParsersAction) -> None:
    text = "list the YAML files that come with the library"
    commands.add_parser("recipes", help=text, description=f"{sentence_case(text)}.")
    text = "print one of these YAML files, to run or to change"
    recipe = commands.add_parser("recipe", help=text, description=f"{sentence_case(text)}.")
    recipe.add_argument(
        "name", metavar="NAME", help="as `latent-ebm recipes` lists it, such as digits/ratio"
    )


def add_checkpoint_command(
    commands: argparse._SubParsersAction, name: str, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{sentence_case(text)}.")
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint written by latent-ebm fit")
    parser.add_argument(
        "--seed", type=seed, default=0, help="seed of the random numbers (default: 0)"
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package of yours that the checkpoint may import classes from; may be repeated",
    )
    return parser


def seed(text: str) -> int:
    """A seed from 0 to 2**32 - 1, which all that draw random numbers take."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 0 to {2**32 - 1}, got {text!r}"
        )
    return int(text)


def sentence_case(text: str) -> str:
    return text[0].upper() + text[1:]


def fraction(text: str) -> float:
    """A number in (0, 1), for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be a number in (0, 1), got {text!r}")
    return value


def positive(text: str) -> int:
    """An integer >= 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)
