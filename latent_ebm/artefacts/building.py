"""Objects from a configuration, which may come from anywhere, by rules that can be read whole.

A configuration is a tree of numbers, words, None, lists, mappings, parts ``{class_path,
init_args}``, and, where tensors are stored beside it, ``{tensor_path}``. A part becomes an object
of its class, and so does a mapping whose argument is annotated with a dataclass. A tensor path
becomes the tensor of that name. All else stays what it is: no word is read again as YAML, JSON, a
path or a name, and no function is called.

Which classes are built is said in ``classes``. The argument that receives a part must be annotated
with its class or a base of it (``hints``). ``Allowed.loaders`` are the one exception: functions
that load a part from another file, by rules like these.
"""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin

from torch import Tensor, nn

from latent_ebm.artefacts.classes import FACTORIES, Allowed, find_class, shorten
from latent_ebm.artefacts.hints import (
    alternatives,
    annotations,
    describes,
    is_fixed,
    misfit,
    takes,
)
from latent_ebm.foreign import reading


def build(node: object, hint: object, place: str, allowed: Allowed) -> Any:
    """The value of ``node`` for the argument at ``place``, whose annotation is ``hint``.

    Raises ``ValueError`` with the place, the rule and the value of what is not allowed or does not
    fit.
    """
    if isinstance(node, dict) and "class_path" in node:
        return build_part(node, hint, place, allowed)
    if isinstance(node, dict) and "tensor_path" in node and allowed.tensors:
        return find_tensor(node, hint, place, allowed)
    kind = next((kind for kind in alternatives(hint) if describes(kind, node)), None)
    if kind is None:
        raise misfit(place, hint, node)
    if isinstance(node, dict) and isinstance(kind, type) and is_dataclass(kind):
        return call(kind, node, place, allowed)
    inner = [part for part in get_args(kind) if part is not ...] or [object]
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
        return tuple(parts) if get_origin(kind) is tuple else parts
    return Path(node) if kind is Path and isinstance(node, str) else node


def build_part(node: dict[object, object], hint: object, place: str, allowed: Allowed) -> object:
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
        made, found = None, find_class(path, f"{place}.class_path", allowed)
    if not any(takes(kind, found) for kind in alternatives(hint)):
        raise misfit(f"{place}.class_path", hint, path)
    if found is nn.Sequential:
        return build_sequential(nodes, place, allowed)
    if issubclass(found, FACTORIES):
        return partial(found, **build_arguments(found, nodes, place, allowed))
    return call(found, nodes, place, allowed) if made is None else made


def build_sequential(nodes: dict[str, object], place: str, allowed: Allowed) -> nn.Sequential:
    """A sequence of the layers ``nodes``, which keep their names."""
    made = nn.Sequential()
    with reading(place, "layers of Sequential by name"):
        for name, node in nodes.items():
            made.add_module(name, build(node, nn.Module, f"{place}.init_args.{name}", allowed))
    return made


def call(
    maker: Callable[..., object], nodes: dict[str, object], place: str, allowed: Allowed
) -> object:
    """Call ``maker`` with the arguments that ``nodes`` describe."""
    arguments = build_arguments(maker, nodes, place, allowed)
    with reading(place, f"arguments of {maker.__name__}"):
        return maker(**arguments)


def build_arguments(
    maker: Callable[..., object], nodes: dict[str, object], place: str, allowed: Allowed
) -> dict[str, object]:
    """The arguments of ``maker`` by name."""
    parameters = inspect.signature(maker).parameters.values()
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = [name for name in nodes if name not in known]
    if unknown and not any(p.kind == p.VAR_KEYWORD for p in parameters):
        names = f"{place}.init_args of {maker.__name__}"
        raise ValueError(f"{names} must be some of {', '.join(known)}, got {shorten(unknown[0])}")
    hints = annotations(maker)
    values = {
        name: build(node, hints.get(name, object), f"{place}.init_args.{name}", allowed)
        for name, node in nodes.items()
    }
    if not maker.__module__.startswith("torch."):
        return values
    return {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}  # sizes


def find_tensor(node: dict[object, object], hint: object, place: str, allowed: Allowed) -> Tensor:
    """The tensor that ``node`` names among those stored beside the configuration."""
    name = node["tensor_path"]
    if len(node) != 1 or not isinstance(name, str) or name not in allowed.tensors:
        raise ValueError(f"{place} must name one of the stored tensors, got {shorten(node)}")
    if not any(takes(kind, Tensor) for kind in alternatives(hint)):
        raise misfit(place, hint, node)
    return allowed.tensors[name]
