"""Checkpoints that explain themselves: each holds the YAML text that describes the model of its
tensors.

A checkpoint may come from anywhere, so nothing in it is executed. Tensors are read without
unpickling objects, and cannot be larger than the file. The parts ``model`` and ``data`` of the
configuration are built by the rules of ``latent_ebm.artefacts.building``. The model is first built
without memory, so that a model that is larger than its file is refused before it takes any.
"""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import torch
import yaml
from lightning.pytorch import LightningDataModule
from torch import Tensor

from latent_ebm.applications import TextToImage
from latent_ebm.artefacts import load
from latent_ebm.artefacts.building import build
from latent_ebm.artefacts.classes import FACTORIES, OURS, PARTS, Allowed
from latent_ebm.artefacts.folders import config_path
from latent_ebm.autoencoders import load_autoencoder
from latent_ebm.cli.modules import modules_here
from latent_ebm.conditions import Conditioner
from latent_ebm.data import DataModule, OtherData
from latent_ebm.denoisers import Denoiser, load_teacher
from latent_ebm.foreign import (
    apart,
    check_file,
    check_pickle,
    check_tensor,
    check_yaml,
    check_zip,
    reading,
    reason,
    rehearsal,
)
from latent_ebm.learning import Denoising
from latent_ebm.learning.base import LearningRule
from latent_ebm.text import load_text_encoder, load_tokenizer, subword_encoder

Checkpoint: TypeAlias = dict[str, Any]  # plain values and tensors by name
KINDS = (*PARTS, *FACTORIES, LightningDataModule)
KEYS = ("config", "state_dict")
PROGRESS = {  # what resuming needs, besides
    **{"epoch": int, "global_step": int, "pytorch-lightning_version": str},
    **{"loops": dict, "callbacks": dict, "optimizer_states": list, "lr_schedulers": list},
}
OWN_PROGRESS = {"settings": list, "rng": dict}  # older checkpoints may lack these
WHOLE = "a whole checkpoint of plain tensors"
MAX_SHARED = 10  # the tensors' total size over that of the file, at most; some share memory


def load_rule(path: str | Path, trust: Sequence[str] = ()) -> tuple[LearningRule, DataModule]:
    """The learning rule of a checkpoint, with its weights and in evaluation mode, and its data
    module, not yet set up.

    ``trust`` lists packages whose classes the configuration may name, besides this library's.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, not a checkpoint of this library, or names classes of
            other packages.
    """
    loaders = {DENOISER_LOADER: apart(load_nested), **FILE_LOADERS}
    with modules_here() if trust else nullcontext():
        return load_parts(path, Allowed((*OURS, *trust), loaders, KINDS))


def load_parts(path: str | Path, allowed: Allowed) -> tuple[LearningRule, DataModule]:
    """Like ``load_rule``, with the classes and loaders that are ``allowed``."""
    checkpoint = read_checkpoint(path)
    config = read_config(checkpoint["config"], path)
    if allowed.packages == OURS:  # modules of other packages may need values when they are made
        with rehearsal():
            fill(
                build(config["model"], LearningRule, "model", allowed),
                checkpoint,
                path,
                assign=True,
            )
    rule = build(config["model"], LearningRule, "model", allowed)
    fill(rule, checkpoint, path)
    for name, parameter in rule.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"{name} in the state_dict of {path} must be finite, got infinity")
    data = build(config["data"], LightningDataModule, "data", allowed)
    return rule.eval(), restore(data, checkpoint, path) if isinstance(
        data, DataModule
    ) else OtherData(data)


def fill(
    rule: LearningRule, checkpoint: Checkpoint, path: str | Path, assign: bool = False
) -> None:
    """Load the tensors of ``checkpoint`` into ``rule``, as copies or, with ``assign``, without a
    copy.
    """
    with reading(path, "the tensors of its own config"):
        rule.on_load_checkpoint(checkpoint)
        rule.load_state_dict(checkpoint["state_dict"], assign=assign)


@contextmanager
def applied(path: str | Path) -> Iterator[None]:
    """Turn errors of a model whose parts do not fit each other, such as a missing argument, into a
    ``ValueError`` that names the file ``path``.
    """
    try:
        yield
    except (TypeError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"{path} must hold a model whose parts fit each other: {reason(error)}"
        ) from error


def restore(data: DataModule, checkpoint: Checkpoint, path: str | Path) -> DataModule:
    """``data`` with the units, range and column names of the rows that the rule of ``checkpoint``
    was trained on.
    """
    name = type(data).__qualname__  # where Lightning keeps the state of a data module
    if name in checkpoint:
        with reading(path, f"the state of its {name}"):
            for key, value in checkpoint[name].items():
                for part in value if isinstance(value, tuple) else (value,):
                    if isinstance(part, Tensor):
                        check_tensor(f"{key} in the {name} of {path}", part)
            data.load_state_dict(checkpoint[name])
    return data


def load_denoiser(checkpoint: str) -> Denoiser:
    """The denoiser from a checkpoint of ``Denoising`` or from a folder that ``save`` wrote. The
    YAML file of a distiller names its teacher in this way.

    It is in training mode, as a rule expects its parts.

    Args:
        checkpoint: The path of the checkpoint or folder.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As ``load_rule``, or if there is no denoiser in it.
    """
    if config_path(checkpoint).is_file():
        return denoiser_in(checkpoint)
    return denoiser_of(load_rule(checkpoint)[0], checkpoint)


def load_nested(checkpoint: str) -> Denoiser:
    """Like ``load_denoiser``, for a checkpoint that another checkpoint names. It must not name a
    third one.
    """
    if config_path(checkpoint).is_file():
        return denoiser_in(checkpoint)
    allowed = Allowed(OURS, FILE_LOADERS, KINDS)
    return denoiser_of(load_parts(checkpoint, allowed)[0], checkpoint)


def load_conditioner(checkpoint: str) -> Conditioner:
    """The conditioner of a checkpoint of ``Denoising``, or of a saved ``TextToImage``. The YAML
    file of a distiller names that of its teacher in this way.

    Args:
        checkpoint: The path of the checkpoint or folder.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As ``load_rule``, or if there is no conditioner in it.
    """
    found = load(checkpoint) if config_path(checkpoint).is_file() else load_rule(checkpoint)[0]
    if not isinstance(found, Denoising | TextToImage):
        kinds, got = "Denoising or TextToImage", type(found).__name__
        raise ValueError(f"{checkpoint} must hold a conditioner, that of {kinds}, got a {got}")
    return found.conditioner.train()


def denoiser_in(folder: str) -> Denoiser:
    """The denoiser that ``save`` wrote to ``folder``, alone or in a text-to-image model."""
    found = load(folder)
    if isinstance(found, TextToImage):
        found = found.denoiser
    if not isinstance(found, Denoiser):
        raise ValueError(f"{folder} must hold a denoiser, got a {type(found).__name__}")
    return found.train()


def by_path(*loaders: Callable[..., object]) -> dict[str, Callable[..., object]]:
    """``loaders`` under the paths of their modules, and of the packages that export them."""
    homes = {
        loader: (loader.__module__, loader.__module__.rpartition(".")[0]) for loader in loaders
    }
    return {
        f"{home}.{loader.__qualname__}": loader for loader in loaders for home in homes[loader]
    }


DENOISER_LOADER = f"{__name__}.{load_denoiser.__name__}"
CONDITIONER_LOADER = f"{__name__}.{load_conditioner.__name__}"
FOLDER_LOADERS = by_path(load_teacher, load_text_encoder, load_tokenizer, load_autoencoder)
# The files that these open hold no code. Only the installed package counts for subwords.
FILE_LOADERS = {
    **{path: apart(loader) for path, loader in FOLDER_LOADERS.items()},
    **by_path(subword_encoder),
}


def denoiser_of(rule: LearningRule, checkpoint: str) -> Denoiser:
    """The denoiser of ``rule``, which ``checkpoint`` holds."""
    if not isinstance(rule, Denoising):
        raise ValueError(
            f"{checkpoint} must hold a denoiser, that of a rule Denoising, got "
            f"{type(rule).__name__}"
        )
    return rule.denoiser.train()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The content of a checkpoint, which has ``KEYS``. Its tensors are on the CPU, and are read
    from the file when they are used.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a checkpoint, or declares more than the file holds.
    """
    path = check_file(path, "a checkpoint")
    check_zip(path, path.stat().st_size, WHOLE, whole=True)
    with reading(path, WHOLE):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    check_pickle(archive.read(name))
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    missing = [key for key in KEYS if not (isinstance(checkpoint, dict) and key in checkpoint)]
    if missing:
        raise ValueError(
            f"{path} is not a checkpoint of latent-ebm fit: it has no "
            f"{' and no '.join(map(repr, missing))}"
        )
    check_tensors(checkpoint["state_dict"], path)
    return checkpoint


def check_progress(checkpoint: Checkpoint, path: str | Path, resumed: bool) -> None:
    """Raise ``ValueError`` if an entry about the progress of training has the wrong type, or is
    missing although training is ``resumed``.
    """
    for name, kind in {**PROGRESS, **OWN_PROGRESS}.items():
        needed = name in checkpoint or (resumed and name in PROGRESS)
        if needed and not isinstance(checkpoint.get(name), kind):
            got = type(checkpoint[name]).__name__ if name in checkpoint else "none"
            raise ValueError(
                f"{path} must hold {name}, of kind {kind.__name__}, for a training to go on, got "
                f"{got}"
            )
    for name, states in checkpoint.get("rng", {}).items():
        if not (isinstance(states, Tensor) and states.dtype == torch.uint8 and states.ndim == 2):
            raise ValueError(
                f"{path} must hold rng, states of random streams, got a {type(states).__name__} "
                f"for {name}"
            )


def read_config(text: object, path: str | Path) -> Checkpoint:
    """The parts ``model`` and ``data`` of the YAML ``text`` of a checkpoint."""
    if not isinstance(text, str):
        raise ValueError(f"the config in {path} must be text, got a {type(text).__name__}")
    with reading(path, "a config with the parts model and data"):
        config = yaml.load(check_yaml(text), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return {part: config[part] for part in ("model", "data")}


def check_tensors(state: object, path: Path) -> None:
    """Raise ``ValueError`` unless ``state`` is a dict of tensors without NaN that fit into the
    file ``path``.
    """
    if not isinstance(state, dict):
        raise ValueError(
            f"the state_dict of {path} must be tensors by name, got a {type(state).__name__}"
        )
    total = 0
    for name, value in state.items():
        if isinstance(value, Tensor):
            check_tensor(f"{name} in the state_dict of {path}", value)
            total += value.numel() * value.element_size()
        elif not str(name).endswith("_extra_state"):
            raise ValueError(
                f"{name} in the state_dict of {path} must be a tensor, got a "
                f"{type(value).__name__}"
            )
    limit = MAX_SHARED * path.stat().st_size
    if total > limit:
        raise ValueError(
            f"the tensors of {path} must have at most {limit:,} bytes in all, got {total:,}"
        )
