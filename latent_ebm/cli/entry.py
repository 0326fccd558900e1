"""The command line: which sub-commands there are, and where their errors end.

``fit``, ``validate``, ``test`` and ``predict`` are Lightning's and take their arguments from a
YAML file; ``commands`` holds the others.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from latent_ebm.cli.commands import (
    audit,
    curate,
    demo,
    detect,
    evaluate,
    export,
    inpaint,
    recipes,
    replace,
    sample,
    score,
    tune,
)
from latent_ebm.cli.errors import USAGE, is_terminated, plain_warnings, report

LIGHTNING = {
    "fit": "train the model that a YAML file describes",
    "validate": "print metrics on the validation set that a YAML file names",
    "test": "print metrics on the test set that a YAML file names",
    "predict": "write a table with a line per row of the test set, such as its energy",
}
DEBUG = "LATENT_EBM_DEBUG"
EPILOG = f"""A command writes its results when everything is computed. They replace an
older file of the same name, but never a file that the command reads.

The YAML file of fit, validate, test and predict is a program: the classes and functions that it
names are imported and run. A checkpoint is not a program: nothing in it is run.

exit status: 0 success, 1 an error (one sentence on stderr), 2 wrong usage, which for detect
includes data that it cannot use. With --debug, or {DEBUG}=1 in the environment, an
error shows its traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sub-command in ``argv`` (default: the process's arguments) and return the exit
    status.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args or os.environ.get(DEBUG, "0") not in ("", "0")
    args = [expand_home(a) for a in args if a != "--debug"]
    try:
        with plain_warnings():
            run(args)
        return 0
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns it into an exit
            return report(stop.__context__)
        if is_terminated(stop):  # an exit without a code, which would pass for success
            return report(stop)
        return stop.code if isinstance(stop.code, int) else USAGE if stop.code else 0
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            raise
        return report(error)


def expand_home(argument: str) -> str:
    """``argument``, or its part after ``=``, with ``~`` expanded as a shell expands a path that
    stands alone.
    """
    option, equals, value = argument.partition("=")
    named = argument.startswith("--") and equals
    return f"{option}={os.path.expanduser(value)}" if named else os.path.expanduser(argument)


def run(args: list[str]) -> None:
    """Run the sub-command that ``args`` begin with."""
    if args and args[0] in LIGHTNING:
        from latent_ebm.cli.trainer import run_lightning

        run_lightning(args)
    else:
        parsed = make_parser().parse_args(args)
        parsed.run(parsed)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands but Lightning's, of which it knows the names."""
    parser = argparse.ArgumentParser(
        "latent-ebm",
        description="Latent energy-based generative models: train, sample, score, evaluate.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo.add(commands)
    for name, text in LIGHTNING.items():
        commands.add_parser(name, help=text, add_help=False)
    for command in (
        sample,
        inpaint,
        tune,
        replace,
        audit,
        curate,
        score,
        evaluate,
        detect,
        export,
        recipes,
    ):
        command.add(commands)
    return parser
