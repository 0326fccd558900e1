"""Objects from the configuration of a checkpoint, which may come from anywhere, by rules that can
be read whole.

A configuration is a tree of numbers, words, None, lists, and parts ``{class_path, init_args}``. A
part becomes an object of its class, and all else stays what it is: no word is read again as YAML,
JSON, a path or a name, and no function is called.

A class is built if ``torch.nn`` or ``torch.optim`` offers it, or if it is defined in this library
or in a package that the user trusts; if it is one of ``KINDS``; and if the parameter that receives
it is annotated with it or a base of it. The constructors of such classes neither read, nor write,
nor run what they are given. ``loaders`` are the one exception: functions that load a denoiser from
another file, by rules like these.
"""

import collections.abc
import importlib
import inspect
import re
import reprlib
import sys
import types
import typing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from latent_ebm.foreign import reading
from samplers import Sampler
from samplers.reverse import ReverseSampler
from samplers.schedules import Schedule

OURS = ("latent_ebm", "samplers")
TORCH = {"torch.nn": nn, "torch.optim": torch.optim, "torch.optim.lr_scheduler": lr_scheduler}
FACTORIES = (
    Optimizer,
    lr_scheduler.LRScheduler,
)  # of which a parameter takes the class, to call it with its own arguments
KINDS = (nn.Module, Sampler, ReverseSampler, Schedule, LightningDataModule, *FACTORIES)
COPIERS = (
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
)  # make as many copies as a number says
SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
MAPPINGS = (dict, collections.abc.Mapping)
PLAIN = {kind: (kind,) for kind in (bool, int, str, types.NoneType)} | {
    float: (float, int),
    Path: (str,),
}
ANY = {bool, int, float, str, types.NoneType, list, dict}


class Allowed(NamedTuple):
    """The ``packages`` whose classes may be named, and the ``loaders`` by name."""

    packages: tuple[str, ...]
    loaders: dict[str, Callable[..., Any]]


def build(node: Any, hint: Any, place: str, allowed: Allowed) -> Any:
    """What ``node`` stands for as the argument at ``place`` that is annotated ``hint``.

    Raises ``ValueError`` with the place, the rule and the value of what is not allowed or does not
    fit.
    """
    if isinstance(node, dict) and "class_path" in node:
        return build_part(node, hint, place, allowed)
    kind = next((kind for kind in alternatives(hint) if describes(kind, node)), None)
    if kind is None:
        raise misfit(place, hint, node)
    inner = [part for part in typing.get_args(kind) if part is not ...] or [Any]
    if isinstance(node, dict):
        return {
            name: build(value, inner[-1], f"{place}.{name}", allowed)
            for name, value in node.items()
        }
    if isinstance(node, list):
        hints = inner if is_fixed(kind) else inner[:1] * len(node)
        parts = [
            build(part, h, f"{place}[{i}]", allowed)
            for i, (part, h) in enumerate(zip(node, hints, strict=True))
        ]
        return tuple(parts) if typing.get_origin(kind) is tuple else parts
    return Path(node) if kind is Path else node


def build_part(node: dict[Any, Any], hint: Any, place: str, allowed: Allowed) -> Any:
    """The object of a part, or its class with arguments for a parameter that takes one of
    ``FACTORIES``.
    """
    path, nodes = node["class_path"], node.get("init_args") or {}
    if (
        not node.keys() <= {"class_path", "init_args"}
        or not isinstance(path, str)
        or not isinstance(nodes, dict)
    ):
        raise ValueError(
            f"{place} must be a class_path, a word, with init_args by name, got {shorten(node)}"
        )
    if path in allowed.loaders:
        made = call(allowed.loaders[path], nodes, place, allowed)
        found = type(made)
    else:
        made, found = None, find_class(path, f"{place}.class_path", allowed.packages)
    if not any(takes(kind, found) for kind in alternatives(hint)):
        raise misfit(f"{place}.class_path", hint, path)
    if issubclass(found, FACTORIES):
        return partial(found, **build_arguments(found, nodes, place, allowed))
    return call(found, nodes, place, allowed) if made is None else made


def call(maker: Callable[..., Any], nodes: dict[Any, Any], place: str, allowed: Allowed) -> Any:
    """What ``maker`` makes of arguments that ``nodes`` stand for."""
    arguments = build_arguments(maker, nodes, place, allowed)
    with reading(place, f"arguments of {maker.__name__}"):
        return maker(**arguments)


def check_factory(place: str, value: Any, kinds: tuple[type, ...]) -> None:
    """Raise ``ValueError`` unless the parsed ``value`` names a class of ``kinds``, and no function
    that may do anything.
    """
    path = getattr(value, "class_path", value)
    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    found = getattr(importlib.import_module(module), name, None) if module else None
    if not (isinstance(found, type) and issubclass(found, kinds)):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{place} must name a class that is an {names}, got {shorten(path)}")


def build_arguments(
    maker: Callable[..., Any], nodes: dict[Any, Any], place: str, allowed: Allowed
) -> dict[str, Any]:
    """The arguments of ``maker`` by name."""
    parameters = inspect.signature(maker).parameters.values()
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = [name for name in nodes if name not in known]
    if unknown and not any(p.kind == p.VAR_KEYWORD for p in parameters):
        names = f"{place}.init_args of {maker.__name__}"
        raise ValueError(f"{names} must be some of {', '.join(known)}, got {shorten(unknown[0])}")
    hints = annotations(maker)
    return {
        name: build(node, hints.get(name, Any), f"{place}.init_args.{name}", allowed)
        for name, node in nodes.items()
    }


def annotations(maker: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of the arguments of ``maker``; none for the classes of PyTorch, which check
    their own.
    """
    if maker.__module__.startswith("torch."):
        return {}
    try:
        return typing.get_type_hints(maker.__init__ if isinstance(maker, type) else maker)
    except (NameError, TypeError):  # names that are there for type checkers alone
        return {}


def find_class(path: str, place: str, packages: tuple[str, ...]) -> type:
    """The class that ``path`` names. Raises ``ValueError`` unless it is allowed."""
    found = find_torch(path) if path.startswith("torch.") else find_in_packages(path, packages)
    if not (isinstance(found, type) and issubclass(found, KINDS)) or found in COPIERS:
        kinds = "a module, sampler, schedule, data module or optimiser"
        where = ", ".join((*packages, "torch.nn, torch.optim"))
        raise ValueError(
            f"{place} must name {kinds} that is a class of {where}, got "
            f"{shorten(path)}{advice(path)}"
        )
    return found


def find_torch(path: str) -> Any:
    """What one of ``TORCH`` offers under ``path``, or under whose home this is; nothing is
    imported.
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


def find_in_packages(path: str, packages: tuple[str, ...]) -> Any:
    """The class that ``path`` names, defined in one of ``packages``; None for anything else."""
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


def advice(path: str) -> str:
    """What to do about a class of another package, which is nothing for those that come with
    Python.
    """
    top = path.split(".")[0]
    if (
        top in sys.stdlib_module_names
        or top in (*OURS, "torch", "builtins")
        or not path.replace(".", "").isidentifier()
    ):
        return ""
    return f"; if the package is yours, add --trust {top}"


def alternatives(hint: Any) -> list[Any]:
    """The members of a union, else ``hint`` alone."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [kind for part in typing.get_args(hint) for kind in alternatives(part)]
    return [hint]


def describes(kind: Any, node: Any) -> bool:
    """Whether ``node``, which is no part, may stand where ``kind`` is asked for."""
    origin = typing.get_origin(kind) or kind
    if kind is Any:
        return type(node) in ANY
    if isinstance(node, dict):
        return origin in MAPPINGS
    if isinstance(node, list):
        return origin in SEQUENCES and (
            not is_fixed(kind) or len(typing.get_args(kind)) == len(node)
        )
    if origin is Literal:
        return any(type(node) is type(word) and node == word for word in typing.get_args(kind))
    return isinstance(kind, type) and type(node) in PLAIN.get(kind, ())


def is_fixed(kind: Any) -> bool:
    """Whether ``kind`` is a tuple that says how long it is."""
    return typing.get_origin(kind) is tuple and ... not in typing.get_args(kind)


def takes(kind: Any, found: type) -> bool:
    """Whether a parameter annotated ``kind`` takes an object of the class ``found``, or for
    ``FACTORIES`` the class.
    """
    if kind is Any:
        return not issubclass(found, FACTORIES)
    if typing.get_origin(kind) is collections.abc.Callable:
        made = [part for part in alternatives(typing.get_args(kind)[-1]) if isinstance(part, type)]
        factory = issubclass(found, FACTORIES)
        return (
            any(issubclass(found, part) for part in made)
            if factory
            else issubclass(found, nn.Module)
        )
    return isinstance(kind, type) and issubclass(found, kind)


def misfit(place: str, hint: Any, node: Any) -> ValueError:
    """``node`` at ``place`` is not what ``hint`` says."""
    names = [
        k.__name__ if isinstance(k, type) else re.sub(r"\b\w+\.", "", str(k))
        for k in alternatives(hint)
    ]
    wanted = " or ".join(names).replace("NoneType", "None")
    return ValueError(f"{place} must be {wanted}, got {shorten(node)}")


def shorten(node: Any) -> str:
    """``repr(node)``, with its middle left out if that is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxlong = 100
    short.maxlevel = 2
    return short.repr(node)
