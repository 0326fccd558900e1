"""Whether a value of a configuration fits the annotation of the argument that receives it.

Annotations are read as they are written: a text is never taken for a number, nor 1 for True.
"""

import collections.abc
import dataclasses
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from torch import nn

from latent_ebm.artefacts.classes import FACTORIES, shorten

SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
MAPPINGS = (dict, collections.abc.Mapping)
PLAIN: dict[object, tuple[type, ...]] = {
    **{kind: (kind,) for kind in (bool, int, str, types.NoneType)},
    float: (float, int),
    Path: (str,),
}
UNTYPED = {bool, int, float, str, types.NoneType, list, dict}


def annotations(maker: Callable[..., object]) -> dict[str, object]:
    """The annotations of the arguments of ``maker``; none for the classes of PyTorch, which check
    their own.
    """
    if maker.__module__.startswith("torch."):
        return {}
    try:
        return typing.get_type_hints(maker.__init__ if isinstance(maker, type) else maker)
    except (NameError, TypeError):  # names that only type checkers see
        return {}


def alternatives(hint: object) -> list[object]:
    """The members of a union, else ``hint`` alone."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [kind for part in typing.get_args(hint) for kind in alternatives(part)]
    return [hint]


def describes(kind: object, node: object) -> bool:
    """Whether ``node``, which is no part, may stand where ``kind`` is asked for."""
    origin = typing.get_origin(kind) or kind
    if kind is Any or kind is object:
        return type(node) in UNTYPED
    if isinstance(node, dict):
        return origin in MAPPINGS or dataclasses.is_dataclass(origin)
    if isinstance(node, list):
        return origin in SEQUENCES and (
            not is_fixed(kind) or len(typing.get_args(kind)) == len(node)
        )
    if origin is Literal:
        return any(type(node) is type(word) and node == word for word in typing.get_args(kind))
    return type(node) in PLAIN.get(kind, ())


def is_fixed(kind: object) -> bool:
    """Whether ``kind`` is a tuple that says how long it is."""
    return typing.get_origin(kind) is tuple and ... not in typing.get_args(kind)


def takes(kind: object, found: type) -> bool:
    """Whether an argument annotated ``kind`` takes an object of the class ``found``, or for one of
    ``FACTORIES`` the class.
    """
    if kind is Any or kind is object:
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


def misfit(place: str, hint: object, node: object) -> ValueError:
    """``node`` at ``place`` is not what ``hint`` says."""
    names = [
        k.__name__ if isinstance(k, type) else re.sub(r"\b\w+\.", "", str(k))
        for k in alternatives(hint)
    ]
    wanted = " or ".join(names).replace("NoneType", "None")
    return ValueError(f"{place} must be {wanted}, got {shorten(node)}")
