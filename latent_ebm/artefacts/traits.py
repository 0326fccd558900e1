"""What training needs to know of parameters besides their values: which are frozen or shared."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def traits(module: nn.Module) -> dict[str, Any]:
    """What training needs to know of the parameters of ``module`` besides their values: the names
    of those that are ``frozen``, and for those that are ``tied`` to another one, its name.
    """
    names: dict[nn.Parameter, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, name)
    found = {
        "frozen": [name for parameter, name in names.items() if not parameter.requires_grad],
        "tied": {
            name: names[parameter]
            for name, parameter in module.named_parameters(remove_duplicate=False)
            if name != names[parameter]
        },
    }
    return {trait: value for trait, value in found.items() if value}


def set_traits(module: nn.Module, named: Mapping[str, Any]) -> None:
    """Tie and freeze parameters of ``module`` as a configuration has ``named`` them. Others are
    trained, also if a constructor has frozen them.
    """
    for name, other in named.get("tied", {}).items():
        here, there = module.get_parameter(name), module.get_parameter(other)
        if not torch.equal(here, there):
            raise ValueError(f"{name} must have the values of {other} to be tied to it")
        owner, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(owner), attribute, there)
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    for name in named.get("frozen", []):
        module.get_parameter(name).requires_grad_(False)
