"""The configuration of an object, read from its attributes.

The rule is that of scikit-learn: a class keeps every argument of its constructor as an attribute
of the same name. So the configuration says what the object is now, also after a stage was added or
a sampler replaced, and the place of a part in it is the prefix of its weights. Nothing is recorded
when an object is made.
"""

import inspect
import math
import types
from typing import TypeAlias

import numpy as np
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from latent_ebm.artefacts.classes import PARTS, full_name, path_of, shorten

Node: TypeAlias = "bool | int | float | str | list[Node] | dict[str, Node] | None"
LEFT_OUT = ("generator", "device", "dtype")  # arguments that are not part of an object's state
WHAT = "a number, a text, a tensor, a sampler, a schedule or a module, or a list of these"


def describe(value: object, place: str, tensors: dict[str, Tensor]) -> Node:
    """``value`` as a node of a configuration. Tensors are collected in ``tensors``, by ``place``.

    Raises ``ValueError`` for what no configuration can hold, such as a function.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place} must be finite to be saved, got {value}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors[place] = value
        return {"tensor_path": place}
    if isinstance(value, list | tuple | nn.ModuleList):
        return [describe(part, join(place, str(i)), tensors) for i, part in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: describe(part, join(place, name), tensors) for name, part in value.items()}
    if not isinstance(value, PARTS):
        raise ValueError(
            f"{place} must be {WHAT} to be saved, got {shorten(value)}; a function can be saved "
            "if it is written as an nn.Module"
        )
    return {
        "class_path": path_of(type(value)),
        "init_args": {
            name: describe(argument, join(place, name), tensors)
            for name, argument in arguments_of(value, place).items()
        },
    }


def arguments_of(part: object, place: str) -> dict[str, object]:
    """The arguments that would make ``part`` again, by name; for a sequence its layers."""
    if isinstance(part, nn.Sequential):
        return dict(part._modules)  # also a layer that stands there twice
    if isinstance(part, nn.Identity) or type(part).__init__ is nn.Module.__init__:
        return {}
    parameters = inspect.signature(type(part)).parameters.values()
    return {
        p.name: argument_of(part, p, place)
        for p in parameters
        if p.name not in LEFT_OUT and not p.name.startswith("_")
    }


def argument_of(part: object, parameter: inspect.Parameter, place: str) -> object:
    """The attribute of ``part`` with the name of a ``parameter`` of its constructor."""
    value = getattr(part, parameter.name, parameter.empty)
    variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    if variadic or value is parameter.empty or isinstance(value, types.MethodType):
        raise ValueError(
            f"{place or 'the object'} cannot be saved: {type(part).__name__} must keep the "
            f"argument {parameter.name} of its constructor as an attribute of this name"
        )
    if type(part).__module__.startswith("torch.nn.") and isinstance(parameter.default, bool):
        return value is not None if not isinstance(value, bool) else value  # bias=True
    return value


def join(place: str, name: str) -> str:
    """The place of the argument ``name`` of the part at ``place``."""
    return f"{place}.{name}" if place else name


def check_twin(module: nn.Module, twin: nn.Module) -> None:
    """Raise ``ValueError`` unless ``twin``, made of the configuration of ``module``, has the same
    layers.
    """
    first, second = (dict(m.named_modules(remove_duplicate=False)) for m in (module, twin))
    for name in [*first, *second]:
        here, there = first.get(name), second.get(name)
        wanted, found = outline(here), outline(there)
        if wanted == found and class_of(here) is class_of(there):
            continue
        another = "another class named " if wanted == found else ""
        raise ValueError(f"{name or 'itself'} would be {another}{found}, not {wanted}")


def class_of(part: nn.Module | None) -> type:
    """The class of ``part``. A parametrized layer has one of its own, below that of the layer."""
    kind = type(part)
    return kind.__bases__[0] if part is not None and is_parametrized(part) else kind


def outline(part: nn.Module | None) -> str:
    """The class of ``part`` and, for a layer of PyTorch, its settings."""
    if part is None:
        return "nothing"
    if not type(part).__module__.startswith("torch.nn.modules."):
        return f"{full_name(type(part))}(...)"
    return f"{type(part).__name__}({'...' if list(part.children()) else part.extra_repr()})"
