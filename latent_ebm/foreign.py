r"""Files from elsewhere: one place that turns any fault of a file into one sentence, before the
file costs memory::

    path = check_file(path, "a saved detector")  # ~ expanded; a file, not a folder or a pipe
    check_zip(path, max_bytes)  # for .npz and the like: the sizes that its members declare
    with reading(path, "a saved detector"):  # every error that parsing raises, in one sentence
        content = parse(path)
    record = read_json(folder / "detector.json")  # all of that for a JSON object
    tree = yaml.safe_load(check_yaml(text))  # YAML text that is no larger than it looks
    with rehearsal():  # a model of any size without memory, to compare with its file
        model = make(tree)

Put only parsing inside ``reading``: every error inside counts as a fault of the file. Errors that
already name the file, and errors about a missing file, permission or package, pass unchanged.
"""

import json
import os
import pickletools
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
import yaml
from torch import Tensor
from torch.overrides import TorchFunctionMode

P = ParamSpec("P")
T = TypeVar("T")
PASSED = (FileNotFoundError, IsADirectoryError, PermissionError, ImportError)
MAX_JSON = 2**24  # bytes
MAX_REASON = 200  # characters
MAX_TEXT, MAX_WORD = 2**20, 2048  # characters of YAML, and of one value in it
# Calls of PyTorch to make a model: about ten per layer. The largest U-Nets of diffusers need half.
MAX_CALLS = 15_000
MAX_GROWTH = 10  # values of a pickle for each of its bytes
MAX_NODES, MAX_DEPTH = (
    100_000,
    100,
)  # values of YAML with aliases written out, and how deep they nest


def check_file(path: str | os.PathLike[str], what: str = "a file") -> Path:
    """``path`` with ``~`` expanded.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If it is not a regular file.
    """
    path = Path(path).expanduser()
    if not os.path.exists(path):  # also False for a name that no file system can hold
        raise FileNotFoundError(
            f"path must name {what}, but there is no {str(path)!r} in {Path.cwd()}"
        )
    if not path.is_file():
        raise ValueError(f"path must name {what}, a regular file, got {str(path)!r}")
    return path


@contextmanager
def reading(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Turn any error inside into a ``ValueError``: ``path`` must hold ``what``, and the reason why
    it does not.
    """
    try:
        yield
    except PASSED:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} must hold {what}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The first line of the message of ``error``, shortened and never empty. The second line is
    added if the first ends in a colon.
    """
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(
        error
    ):  # in the words of PyTorch
        return "it asks for more memory than there is"
    text = f"no {error.args[0]!r}" if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return line if len(line) <= MAX_REASON else f"{line[:MAX_REASON]}..."


def check_zip(
    path: str | os.PathLike[str], max_bytes: int, what: str = "a zip archive", whole: bool = False
) -> None:
    """Raise ``ValueError`` if ``path`` is not a zip archive, or its members declare more than
    ``max_bytes`` in all.

    With ``whole`` the members are also read and their checksums compared, for readers that do not
    do so.
    """
    with reading(path, what), zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
        if size > max_bytes:
            raise ValueError(
                f"{path} must hold at most {max_bytes:,} bytes when unpacked, got {size:,}"
            )
        if whole and (name := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {name} is wrong")


def check_pickle(content: bytes) -> None:
    """Raise ``ValueError`` for a pickle that holds bytes, or whose tuples have more than
    ``MAX_GROWTH`` values per byte when written out.

    A tuple that holds another one twice, forty levels deep, takes a hundred bytes. As a key of a
    dictionary it takes years to hash. Some encodings of a long text are as slow, and a
    ``bytearray`` of any size takes a few bytes. The check reads only the operations and the sizes
    of what they leave on the stack; nothing is unpickled.
    """
    stack, marks, memo, total = [], [], {}, 0
    for operation, argument, _ in pickletools.genops(content):
        name, before = operation.name, operation.stack_before
        if name == "GLOBAL" and str(argument).endswith((" bytearray", " encode")):
            raise ValueError("it must hold no bytes")
        if name == "MARK":
            marks.append(len(stack))
        elif name.endswith("PUT"):
            memo[argument] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[argument])
        else:
            end = marks.pop() if pickletools.markobject in before else len(stack)
            start = end - sum(
                kind not in (pickletools.markobject, pickletools.stackslice) for kind in before
            )
            taken = 1 + sum(stack[start:])
            stack[start:] = [taken if name.startswith("TUPLE") else 1] * len(operation.stack_after)
        total += stack[-1] if stack else 0
        if total > MAX_GROWTH * len(content):
            raise ValueError(
                f"its tuples must have at most {MAX_GROWTH} values a byte when written out, got "
                "more"
            )


def read_json(
    path: str | os.PathLike[str], what: str = "an object of JSON", max_bytes: int = MAX_JSON
) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has more than ``max_bytes`` bytes, or holds no JSON object.
    """
    path = check_file(path, what)
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{path} must have at most {max_bytes:,} bytes, got {size:,}")
    with reading(path, what):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold {what}, got a {type(content).__name__}")
    return content


def check_yaml(text: str) -> str:
    """``text`` unchanged. Raises ``ValueError`` for YAML whose tree, with aliases written out,
    exceeds the limits above.

    Ten lines with anchors and aliases can stand for 10^9 values, or for a value inside itself. The
    check reads only the parser's events.
    """
    check_limit("have", len(text), MAX_TEXT, "characters")
    # anchors: (values, depth); parents: [anchor, count at its start, depth so far]
    count, anchors, parents = 0, {}, []
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        size = depth = 0
        if isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, *_ in parents):
                raise ValueError(
                    f"YAML must not hold a value inside itself, got *{event.anchor[:50]}"
                )
            size, depth = anchors.get(event.anchor, (0, 0))
        elif isinstance(event, yaml.ScalarEvent):
            check_limit("have values of", len(event.value), MAX_WORD, "characters")
            size, anchors[event.anchor] = 1, (1, 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            size = 1
            parents.append([event.anchor, count, 0])
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, start, depth = parents.pop()
            anchors[anchor] = count - start, (depth := depth + 1)
        count += size
        check_limit("hold", count, MAX_NODES, "values, aliases written out")
        check_limit("nest", len(parents) + depth, MAX_DEPTH, "deep")
        if parents:
            parents[-1][2] = max(parents[-1][2], depth)
    return text


@contextmanager
def rehearsal() -> Iterator[None]:
    """Make modules without memory for their tensors; more than ``MAX_CALLS`` calls of PyTorch are
    a ``ValueError``.

    It tries out a model that a file describes before it is made with real memory. Modules of other
    packages may fail, if they need the values of tensors when they are made.
    """
    # the budget may run out while PyTorch turns gradients on again, so they are restored outside
    grads = torch.set_grad_enabled(torch.is_grad_enabled())
    with grads, torch.device("meta"), Budget(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*non-meta parameter.*")
        yield


def apart(load: Callable[P, T]) -> Callable[P, T]:
    """``load`` in a separate thread, where the settings of a rehearsal do not apply."""

    @wraps(load)
    def load_apart(*args: P.args, **kwargs: P.kwargs) -> T:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(load, *args, **kwargs).result()

    return load_apart


class Budget(TorchFunctionMode):
    """Counts calls of PyTorch, and raises ``ValueError`` after ``MAX_CALLS``."""

    calls = 0

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise ValueError(
                f"model must be made with at most {MAX_CALLS:,} calls of PyTorch, got more"
            )
        return func(*args, **(kwargs or {}))


def check_limit(verb: str, size: int, limit: int, unit: str) -> None:
    if size > limit:
        raise ValueError(f"YAML must {verb} at most {limit:,} {unit}, got {size:,}")


def check_tensor(name: str, value: Tensor) -> None:
    """Raise ``ValueError`` unless ``value`` is dense and real, no larger than its memory, and
    without NaN.
    """
    if (
        value.layout != torch.strided
        or value.device.type != "cpu"
        or value.is_quantized
        or value.is_complex()
    ):
        raise ValueError(
            f"{name} must be a dense tensor of real numbers, got {value.dtype} on {value.device}"
        )
    size, held = value.numel() * value.element_size(), value.untyped_storage().nbytes()
    if size > held:
        raise ValueError(
            f"{name} must be no larger than the {held:,} bytes that are stored, got {size:,}"
        )
    if bool(torch.isnan(value).any()):
        raise ValueError(f"{name} must hold numbers, got NaN")
