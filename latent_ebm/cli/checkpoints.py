"""Checkpoints that explain themselves: the YAML text they hold says how to build what their tensors fill.

A checkpoint may come from anywhere, so nothing in it is executed. Tensors are read without unpickling objects. A class of
the configuration is imported only if its path lies in a package that this library is made of, or that the user trusts by
name, and if it is a class or function *defined* there, so that no path leads through a module to what that has imported.
"""

import importlib
import importlib.util
import inspect
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser

from latent_ebm.data import DataModule
from latent_ebm.denoisers import Denoiser
from latent_ebm.foreign import reading
from latent_ebm.learning import Denoising
from latent_ebm.learning.base import LearningRule

PACKAGES = ("latent_ebm", "samplers", "torch.nn", "torch.optim", "lightning.pytorch")
KEYS = ("config", "state_dict")


def load_rule(path: str | Path, trust: Sequence[str] = ()) -> tuple[LearningRule, DataModule]:
    """The learning rule of a checkpoint, with its weights and in evaluation mode, and its data module, not yet set up.

    ``trust`` names packages, besides this library's, that the configuration may import from. Raises
    ``FileNotFoundError`` for a missing file and ``ValueError`` for one that is damaged, foreign or not trusted.
    """
    checkpoint = read_checkpoint(path)
    config = read_config(checkpoint["config"], path)
    check_trusted(config, (*PACKAGES, *trust))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LearningRule, "model", required=True)
    parser.add_subclass_arguments(DataModule, "data", required=True)
    parts = parser.instantiate(parser.parse_object(config))
    rule = parts["model"]
    rule.on_load_checkpoint(checkpoint)
    try:
        rule.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"the tensors of {path} do not fit its own config: {error}") from error
    return rule.eval(), restore(parts["data"], checkpoint, path)


def restore(data: DataModule, checkpoint: dict[str, Any], path: str | Path) -> DataModule:
    """``data`` with the units, range and names of what the rule of its ``checkpoint`` was trained with."""
    name = type(data).__qualname__  # where Lightning keeps the state of a data module
    if name in checkpoint:
        with reading(path, f"the state of its {name}"):
            data.load_state_dict(checkpoint[name])
    return data


def load_denoiser(checkpoint: str) -> Denoiser:
    """The denoiser of a checkpoint of ``Denoising``: the teacher that the YAML file of a distiller names.

    In training mode, as a rule expects its parts. Raises as ``load_rule``, and ``ValueError`` for another rule's checkpoint.
    """
    rule, _ = load_rule(checkpoint)
    if not isinstance(rule, Denoising):
        raise ValueError(f"{checkpoint} must hold a denoiser, that of a rule Denoising, got {type(rule).__name__}")
    return rule.denoiser.train()


def inline_denoisers(config: Any) -> Any:
    """``config``, plain dicts, lists and scalars, with the denoiser's own configuration for every ``load_denoiser``.

    The checkpoint of a rule that holds the denoiser holds its weights too, and so needs no other checkpoint.
    """
    if isinstance(config, list):
        return [inline_denoisers(value) for value in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_path") == f"{__name__}.{load_denoiser.__name__}":
        path = config["init_args"]["checkpoint"]
        return read_config(read_checkpoint(path)["config"], path)["model"]["init_args"]["denoiser"]
    return {name: inline_denoisers(value) for name, value in config.items()}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, tensors on the CPU, with ``KEYS`` there."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {str(path)!r}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
        raise ValueError(f"{path} is not a whole checkpoint of plain tensors: {reason}") from error
    missing = [key for key in KEYS if not (isinstance(checkpoint, dict) and key in checkpoint)]
    if missing:
        raise ValueError(
            f"{path} is not a checkpoint of latent-ebm fit: it has no {' and no '.join(map(repr, missing))}"
        )
    return checkpoint


def read_config(text: Any, path: str | Path) -> dict[str, Any]:
    """The parts ``model`` and ``data`` of the YAML ``text`` of a checkpoint."""
    try:
        config = yaml.safe_load(text)
        return {part: {"class_path": config[part]["class_path"], **config[part]} for part in ("model", "data")}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the config in {path} must have a class_path in model and data") from error


def check_trusted(config: Any, packages: Sequence[str], key: str = "config") -> None:
    """Raise ``ValueError`` if ``config``, plain dicts, lists and scalars, names something importable from elsewhere."""
    for place, text, is_class in walk(config, key):
        if is_class:
            check_defined(place, text, packages)
        elif is_importable(text) and not is_inside(text, packages):
            raise ValueError(refusal(place, text, packages))


def walk(config: Any, key: str) -> Iterator[tuple[str, str, bool]]:
    """Every string in ``config``: its key, itself, and whether it is a ``class_path``."""
    if isinstance(config, dict):
        for name, value in config.items():
            if name == "class_path":
                yield f"{key}.{name}", str(value), True
            else:
                yield from walk(value, f"{key}.{name}")
    elif isinstance(config, list):
        for i, value in enumerate(config):
            yield from walk(value, f"{key}[{i}]")
    elif isinstance(config, str):
        yield key, config, False


def check_defined(place: str, class_path: str, packages: Sequence[str]) -> None:
    """Raise ``ValueError`` unless ``class_path`` is a class or function that one of ``packages`` defines."""
    module, _, name = class_path.rpartition(".")
    if not is_inside(module, packages):
        raise ValueError(refusal(place, class_path, packages))
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{place} must name a class, got {class_path!r}: {error}") from error
    if not (inspect.isclass(found) or inspect.isfunction(found)) or not is_inside(found.__module__, packages):
        raise ValueError(refusal(place, class_path, packages))


def is_inside(path: str, packages: Sequence[str]) -> bool:
    """Whether the dotted ``path`` is one of ``packages`` or lies in it."""
    return any(path == package or path.startswith(f"{package}.") for package in packages)


def is_importable(text: str) -> bool:
    """Whether ``text`` reads as a dotted path into a module of this interpreter. Nothing is imported."""
    parts = text.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts) and bool(importlib.util.find_spec(parts[0]))


def refusal(place: str, path: str, packages: Sequence[str]) -> str:
    return (
        f"{place} must lie in one of the packages {', '.join(packages)}, got {path!r}; "
        f"if it is yours, add --trust {path.split('.')[0]}"
    )
