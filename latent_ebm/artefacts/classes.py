"""Which classes a configuration may name, and by which path.

A class may be named if ``torch.nn`` or ``torch.optim`` offers it, if this library or a package
that the user trusts defines it, or if the user hands it over. It must also be of an allowed kind.
The constructors of such classes neither read, nor write, nor run what they are given.
"""

import importlib
import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from samplers import Sampler
from samplers.reverse import ReverseSampler
from samplers.schedules import Schedule

OURS = ("latent_ebm", "samplers")
TORCH = {"torch.nn": nn, "torch.optim": torch.optim, "torch.optim.lr_scheduler": lr_scheduler}


class Described:
    """A class that is not a module but can be part of a saved one. Its constructor only keeps its
    arguments, as attributes of the same name.
    """


PARTS = (nn.Module, Sampler, ReverseSampler, Schedule, Described)  # what models are made of
FACTORIES = (Optimizer, lr_scheduler.LRScheduler)  # parameters take these classes, not objects
COPIERS = (  # these make any number of copies of a layer
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
)


class Allowed(NamedTuple):
    """What a configuration may name.

    Args:
        packages: Packages whose classes may be named.
        loaders: Functions that load a part from another file, by path.
        kinds: Base classes, of one of which every class must be.
        own: Classes of the user, found by ``find_own``, wherever they are defined.
        tensors: Tensors that ``tensor_path`` may name.
    """

    packages: tuple[str, ...]
    loaders: Mapping[str, Callable[..., object]] = MappingProxyType({})
    kinds: tuple[type, ...] = (*PARTS, *FACTORIES)
    own: tuple[type, ...] = ()
    tensors: Mapping[str, Tensor] = MappingProxyType({})


def find_class(path: str, place: str, allowed: Allowed) -> type:
    """The class that ``path`` names. Raises ``ValueError`` unless it is ``allowed``."""
    found = find(path, allowed)
    if not (isinstance(found, type) and issubclass(found, allowed.kinds)) or found in COPIERS:
        kinds = ", ".join(kind.__name__ for kind in allowed.kinds)
        raise ValueError(
            f"{place} must name a class that may be made, got {shorten(path)}: one of {kinds}, of "
            f"{', '.join((*allowed.packages, 'torch'))}{advice(path)}"
        )
    return found


def find(path: str, allowed: Allowed) -> object:
    """What ``path`` names in PyTorch, in one of the packages, or among the user's own classes."""
    if path.startswith("torch."):
        return find_torch(path)
    if not is_inside(path, allowed.packages):
        return find_own(path, allowed.own)
    return find_in_packages(path, allowed.packages)


def find_own(path: str, own: Sequence[type]) -> type | None:
    """The one of the user's ``own`` classes that ``path`` names; if none does, the one of that
    name, which may have moved to another module.

    Raises ``ValueError`` if there are several.
    """
    named = dict.fromkeys(cls for cls in own if cls.__name__ == path.rpartition(".")[2])
    exact = [cls for cls in named if path in (path_of(cls), full_name(cls))]
    found = exact or list(named)
    if len(found) > 1:
        raise ValueError(
            f"classes must have one class for {shorten(path)}, got "
            f"{', '.join(sorted(map(full_name, found)))}"
        )
    return found[0] if found else None


def find_torch(path: str) -> object:
    """What one of ``TORCH`` offers under ``path``, or under the path of the module that defines
    it; nothing is imported.
    """
    module, _, name = path.rpartition(".")
    offers = {space: vars(offer).get(name) for space, offer in TORCH.items()}
    return next(
        (
            found
            for space, found in offers.items()
            if module in (space, getattr(found, "__module__", ""))
        ),
        None,
    )


def find_in_packages(path: str, packages: tuple[str, ...]) -> object:
    """The class that ``path`` names and one of ``packages`` defines; None for anything else."""
    module, _, name = path.rpartition(".")
    public = all(part.isidentifier() and part[0] != "_" for part in path.split("."))
    if not (public and is_inside(module, packages)):
        return None
    try:
        found = vars(importlib.import_module(module)).get(name)
    except ModuleNotFoundError:
        return None
    return found if is_inside(str(getattr(found, "__module__", "")), packages) else None


def is_inside(path: str, packages: tuple[str, ...]) -> bool:
    """Whether the dotted ``path`` is one of ``packages`` or lies in it."""
    return any(path == package or path.startswith(f"{package}.") for package in packages)


def path_of(cls: type) -> str:
    """The shortest path under which ``cls`` can be imported: that of a package which re-exports
    it, if there is one, so that the path survives a class that moves to another file.
    """
    names = cls.__module__.split(".")
    packages = [".".join(names[: end + 1]) for end in range(len(names))]
    homes = [p for p in packages if getattr(sys.modules.get(p), cls.__name__, None) is cls]
    return f"{homes[0]}.{cls.__qualname__}" if homes else full_name(cls)


def full_name(cls: type) -> str:
    """The path of ``cls`` in the module that defines it."""
    return f"{cls.__module__}.{cls.__qualname__}"


def advice(path: str) -> str:
    """Advice for a class of another package; none for a class that comes with Python."""
    top, name = path.split(".")[0], path.rpartition(".")[2]
    known = top in sys.stdlib_module_names and top != "__main__"
    if known or top in (*OURS, "torch", "builtins") or not name.isidentifier():
        return ""
    trust = f", or add --trust {top} to the command" if top.isidentifier() else ""
    return f"; if it is yours, hand it over as in load(folder, classes=[{name}]){trust}"


def shorten(node: object) -> str:
    """``repr(node)``, with its middle left out if that is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxlong = 100
    short.maxlevel = 2
    return short.repr(node)
