"""How the command line ends when something is wrong: one sentence on stderr and an exit status.

Errors that say what is wrong (a value, a file, a number that is not finite) become a sentence. Others are bugs and keep
their traceback.
"""

import sys

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
EXPECTED = (ValueError, ArithmeticError, OSError, RuntimeError, IndexError, ImportError)


def report(error: BaseException) -> int:
    """Print ``error`` as one sentence and return the exit status; raise it again if it is not of an expected kind."""
    if isinstance(error, KeyboardInterrupt):
        print("latent-ebm: interrupted", file=sys.stderr)
        return INTERRUPTED
    if is_usage(error):
        print(f"latent-ebm: {sentence(error)}", file=sys.stderr)
        return USAGE
    if not isinstance(error, EXPECTED) and not is_misconfiguration(error):
        raise error
    print(f"latent-ebm: error: {sentence(error)}", file=sys.stderr)
    return FAILURE


def is_usage(error: BaseException) -> bool:
    """Whether jsonargparse refused a key or value of a command line or YAML file."""
    jsonargparse = sys.modules.get("jsonargparse")
    return jsonargparse is not None and isinstance(error, jsonargparse.ArgumentError)


def is_misconfiguration(error: BaseException) -> bool:
    """Whether Lightning refused its settings (its exception is a plain ``Exception``)."""
    exceptions = sys.modules.get("lightning.fabric.utilities.exceptions")
    return exceptions is not None and isinstance(error, exceptions.MisconfigurationException)


def sentence(error: BaseException) -> str:
    """The message of ``error`` on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, (ValueError, ArithmeticError, RuntimeError)) else f"{text}"
