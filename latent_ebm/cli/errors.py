"""How the command line ends when something is wrong: one sentence on stderr and an exit status.

Errors that say what is wrong (a value, a file, a number that is not finite) become a sentence. Others are bugs and keep
their traceback.
"""

import re
import sys

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
EXPECTED = (ValueError, ArithmeticError, OSError, RuntimeError, LookupError, ImportError)


class WrongUsage(ValueError):
    """The user named something that cannot be used: exit status 2."""


def report(error: BaseException) -> int:
    """Print ``error`` as one sentence and return the exit status; raise it again if it is not of an expected kind."""
    if isinstance(error, KeyboardInterrupt):
        print("latent-ebm: interrupted", file=sys.stderr)
        return INTERRUPTED
    refused = is_from("jsonargparse", "ArgumentError", error)
    misconfigured = is_from("lightning.fabric.utilities.exceptions", "MisconfigurationException", error)
    if not (refused or misconfigured or isinstance(error, EXPECTED)):
        raise error
    print(f"latent-ebm: error: {sentence(error)}", file=sys.stderr)
    return USAGE if refused or isinstance(error, WrongUsage) else FAILURE


def is_from(module: str, name: str, error: BaseException) -> bool:
    """Whether ``error`` is of the class ``name`` of ``module``, which is not imported for it."""
    return module in sys.modules and isinstance(error, getattr(sys.modules[module], name))


def sentence(error: BaseException) -> str:
    """The message of ``error`` on one line; that of jsonargparse begins with the path of the key it is about."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.split()) or type(error).__name__
    text = re.split(r" -? ?Expected a <class 'NoneType'>| Given value type:", text)[0]
    text = re.sub(r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - ", "", text)
    keys = re.findall(r'Parser key "([^"]+)": ', text)
    if not keys:
        return text
    cause = re.sub(r'Parser key "[^"]+": ', "", text)
    classes = re.findall(r"Problem with given class_path '([^']+)': ", cause)
    cause = re.sub(r"Problem with given class_path '[^']+': ", "", cause)
    return f"{'.init_args.'.join(keys)}{f' ({classes[-1]})' if classes else ''}: {cause}"
