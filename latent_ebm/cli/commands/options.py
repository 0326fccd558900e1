"""Arguments that several sub-commands share, and the types of arguments."""

import argparse
import math
from typing import TYPE_CHECKING, TypeAlias

from latent_ebm.files.limits import MAX_ENTRIES

if TYPE_CHECKING:
    from latent_ebm.files import Reader

# argparse has no public name for it
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands, name: str, text: str, more: str = ""
) -> argparse.ArgumentParser:
    """A new sub-command ``name``. ``text`` describes it in a list; its own help adds ``more``."""
    description = f"{text[0].upper()}{text[1:]}. {more}".strip()
    return commands.add_parser(name, help=text, description=description)


def add_checkpoint_command(
    commands: Commands, name: str, text: str, more: str = ""
) -> argparse.ArgumentParser:
    """A new sub-command that reads a checkpoint."""
    parser = add_command(commands, name, text, more)
    parser.add_argument(
        "checkpoint", metavar="CKPT", help="a checkpoint that latent-ebm fit wrote"
    )
    add_seed(parser)
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package of yours whose classes the checkpoint may use; may be repeated",
    )
    return parser


def add_steps(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--steps", type=positive, help="number of steps of the sampler (default: as in training)"
    )


def add_seed(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--seed", type=seed, default=0, help="seed of all random numbers (default: 0)"
    )


def add_size(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--size",
        type=positive,
        metavar="PIXELS",
        help="resize the images of a folder to PIXELS x PIXELS, whatever their aspect ratio",
    )


def add_reading(command: argparse.ArgumentParser) -> None:
    """How to read files of rows."""
    group = command.add_argument_group(
        "tables",
        "How to read a table. Without these options, the separator, the header and a column of "
        "ids are found by fixed rules, and what was found is printed.",
    )
    group.add_argument(
        "--id", metavar="COLUMN", help="the column that names the rows; it is not a feature"
    )
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
        help='what separates the cells of a line: "," or ";" or tab or space',
    )
    group.add_argument(
        "--header", choices=("yes", "no"), help="whether the first line names the columns"
    )
    group.add_argument(
        "--missing",
        choices=("refuse", "drop"),
        default="refuse",
        help="what to do about rows with missing values: refuse the file (default), or leave "
        "these rows out and say how many",
    )
    group.add_argument(
        "--max-entries",
        type=positive,
        default=MAX_ENTRIES,
        metavar="N",
        help="refuse files with more than N entries (rows x columns), before they fill the "
        "memory (default: %(default)s)",
    )


def make_reader(args: argparse.Namespace) -> "Reader":
    """What reads files of rows as the options of ``add_reading`` say."""
    from latent_ebm.files import Reader

    header = None if args.header is None else args.header == "yes"
    return Reader(args.id, args.drop, args.sep, header, args.missing, max_entries=args.max_entries)


def seed(text: str) -> int:
    """A seed from 0 to 2**32 - 1, which every random generator accepts."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 0 to {2**32 - 1}, got {text!r}"
        )
    return int(text)


def number(text: str) -> float:
    """The number that ``text`` is; NaN, which lies nowhere, for other text."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def fraction(text: str) -> float:
    """A number in (0, 1)."""
    if not 0 < number(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number in (0, 1), got {text!r}")
    return number(text)


def share(text: str) -> float:
    """A number in [0, 1]."""
    if not 0 <= number(text) <= 1:
        raise argparse.ArgumentTypeError(f"must be a number in [0, 1], got {text!r}")
    return number(text)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)
