"""How the command line ends when something is wrong: one sentence on stderr and an exit status.
A warning is a sentence too.

Errors that say what is wrong (a value, a file, a number that is not finite) become a sentence. If
it is not this library's, as "math domain error", the sentence also says where it arose and how to
see more. Other errors are bugs and keep their traceback.
"""

import dis
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

FAILURE, USAGE, INTERRUPTED, TERMINATED = 1, 2, 130, 143
EXPECTED = (
    ValueError,
    ArithmeticError,
    OSError,
    RuntimeError,
    LookupError,
    ImportError,
    MemoryError,
)
PACKAGES = ("latent_ebm", "samplers")
OUT_OF_MEMORY = re.compile(r"(?:tried|unable) to allocate (\d[\d.,]* ?\w+)", re.IGNORECASE)
MAX_TEXT = 1000  # characters


class WrongUsage(ValueError):
    """The user named something that cannot be used: exit status 2."""


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show a warning as one line, without the place in the code that it comes from."""
    usual = warnings.formatwarning
    warnings.formatwarning = one_line
    try:
        yield
    finally:
        warnings.formatwarning = usual


def one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """What is shown of a warning; the arguments are those of ``warnings.formatwarning``."""
    return f"latent-ebm: warning: {cut(' '.join(str(message).split()))}\n"


def report(error: BaseException) -> int:
    """Print ``error`` as one sentence and return the exit status; raise it again if it is not of
    an expected kind.
    """
    if isinstance(error, KeyboardInterrupt):
        print("latent-ebm: interrupted", file=sys.stderr)
        return INTERRUPTED
    if is_terminated(error):
        print("latent-ebm: terminated", file=sys.stderr)
        return TERMINATED
    refused = is_from("jsonargparse", "ArgumentError", error)
    misconfigured = is_from(
        "lightning.fabric.utilities.exceptions", "MisconfigurationException", error
    )
    if not (refused or misconfigured or isinstance(error, EXPECTED)):
        raise error
    cause = error.__cause__ if isinstance(error, WrongUsage) and error.__cause__ else error
    text = cut(sentence(error)) if refused or misconfigured or speaks(cause) else located(cause)
    print(f"latent-ebm: error: {text}", file=sys.stderr)
    return USAGE if refused or isinstance(error, WrongUsage) else FAILURE


def speaks(error: BaseException) -> bool:
    """Whether ``error`` says what is wrong: this library raised it, or it names a file or
    module.
    """
    if isinstance(error, (ImportError, WrongUsage)) or (
        isinstance(error, OSError) and error.filename
    ):
        return True
    module, last = places(error)[-1]
    raised = (
        last.tb_frame.f_code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    )  # not by what it called
    return raised and module.split(".")[0] in PACKAGES


def located(error: BaseException) -> str:
    """The message of ``error``, its kind, and the function of this library that it arose in."""
    text, memory = cut(sentence(error)), OUT_OF_MEMORY.search(str(error))
    if memory or isinstance(error, MemoryError):
        text = f"not enough memory{f' for {memory[1]}' if memory else ''}"
    own = [(module, place) for module, place in places(error) if module.split(".")[0] in PACKAGES]
    module, place = own[-1] if own else places(error)[-1]
    kind, function = type(error).__name__, place.tb_frame.f_code.co_name
    return f"{text} ({kind} in {module}.{function}; --debug shows the traceback)"


def cut(text: str) -> str:
    text = "".join(
        c if c.isprintable() else ascii(c)[1:-1] for c in text
    )  # no orders to the terminal
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ..."


def places(error: BaseException) -> list[tuple[str, TracebackType]]:
    """Where ``error`` passed, the place it arose at last: modules and entries of the traceback."""
    found, entry = [], error.__traceback__
    while entry is not None:
        found.append((entry.tb_frame.f_globals.get("__name__", ""), entry))
        entry = entry.tb_next
    return found


def is_from(module: str, name: str, error: BaseException) -> bool:
    """Whether ``error`` is of the class ``name`` of ``module``, which is not imported for it."""
    return module in sys.modules and isinstance(error, getattr(sys.modules[module], name))


def is_terminated(error: BaseException) -> bool:
    """Whether Lightning raised ``error`` because the process received SIGTERM."""
    return is_from("lightning.pytorch.utilities.exceptions", "SIGTERMException", error)


def sentence(error: BaseException) -> str:
    """The message of ``error`` on one line; that of jsonargparse begins with the path of the key
    it is about.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.split()) or type(error).__name__
    text = re.split(r" -? ?Expected a <class 'NoneType'>| Given value type:", text)[0]
    text = re.sub(
        r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - ",
        "",
        text,
    )
    text = re.sub(
        r"the following arguments are required: (\w+)\.data, \1\.model",
        r"\1 needs a YAML file, --config FILE: latent-ebm recipes lists those of the library",
        text,
    )
    keys = re.findall(r'Parser key "([^"]+)": ', text)
    if not keys:
        return text
    cause = re.sub(r'Parser key "[^"]+": ', "", text)
    classes = re.findall(r"Problem with given class_path '([^']+)': ", cause)
    cause = re.sub(r"Problem with given class_path '[^']+': ", "", cause)
    return f"{'.init_args.'.join(keys)}{f' ({classes[-1]})' if classes else ''}: {cause}"
