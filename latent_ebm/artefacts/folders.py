r"""A trained object as a folder: ``model.save(folder)``, ``load(folder)``.

The folder holds ``config.json`` (classes and arguments, versions, hashes) and the tensors, as
``weights-3f2a91c0b1d2e4f5.safetensors``. The name of the weights comes from their hash, or is
random if they replace those of an older object.

A save writes the weights under a new name and then, in one step, ``config.json``, which names
them. So whoever reads finds the old object or the new one and never a mixture, wherever a save is
cut short and however many save at once. Nothing is ever unpickled.
"""

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from latent_ebm.artefacts.building import build
from latent_ebm.artefacts.classes import OURS, PARTS, Allowed, is_inside
from latent_ebm.artefacts.describing import Node, check_twin, describe
from latent_ebm.artefacts.state import fill, plain, state_of
from latent_ebm.artefacts.traits import set_traits, traits
from latent_ebm.foreign import check_file, check_tensor, read_json, reading, rehearsal
from latent_ebm.writing import OLD, atomic_path
from samplers.checks import check_kind

FORMAT = 1
CONFIG = "config.json"
KEYS = {"format", "library", "object", "weights", "sha256"}
WEIGHTS = re.compile(r"weights-[0-9a-f]{16}\.safetensors")
DRAFT = re.compile(r"\.(config\.json|weights-[0-9a-f]{16}\.safetensors)\.[0-9a-f]{16}\.tmp")
WHAT = "an object that this version can load"


class Artefact(nn.Module):
    """A module that can be saved: it keeps every argument of its constructor as an attribute of
    the same name.
    """

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write this object to ``folder``, from where ``latent_ebm.load(folder)`` returns it; see
        ``latent_ebm.save``.
        """
        save(self, folder)

    def restored(self) -> object:
        """What ``load`` returns: this module, unless it holds another object's state."""
        return self


def save(module: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Write ``module`` to ``folder``, which is made if need be, in place of an older object.

    It may be made of classes of this library, layers of ``torch.nn``, and classes of your own that
    keep the arguments of their constructors as attributes.

    Args:
        module: A model, denoiser, student, critic, encoder or any other network.
        folder: A new folder, an empty one, or one that ``save`` wrote.

    Raises:
        ValueError: ``module`` has an argument that cannot be saved, such as a function, or it was
            changed so that its arguments would not make it again, or it holds NaN.
        FileExistsError: ``folder`` holds anything else.
        OSError: Nothing can be written there.
    """
    check_kind("save", nn.Module, module=module)
    target = check_place(folder)
    tensors: dict[str, Tensor] = {}
    tree = describe(module, "", tensors)
    tensors = {name: plain(name, value) for name, value in (tensors | state_of(module)).items()}
    try:
        check_twin(module, rebuild(tree, tensors, tuple({type(m) for m in module.modules()})))
    except ValueError as error:
        raise ValueError(
            f"the {type(module).__name__} cannot be saved, as the arguments of its constructors "
            f"would make another one: {error}"
        ) from error
    content = to_bytes(tensors)
    digest = hashlib.sha256(content).hexdigest()
    before = weights_named_in(target)
    # of an older object, the same content may be about to be removed by another save
    name = f"weights-{secrets.token_hex(8) if before else digest[:16]}.safetensors"
    record = {
        "format": FORMAT,
        "library": f"latent-ebm {metadata.version('latent-ebm')}",
        "object": tree,
        "weights": {"file": name, "sha256": digest, **traits(module)},
    }
    text = json.dumps({**record, "sha256": fingerprint(record)}, indent=2, allow_nan=False)
    with atomic_path(target / name) as draft:
        draft.write_bytes(content)
    with atomic_path(target / CONFIG) as draft:
        draft.write_text(text + "\n", encoding="utf-8")
    remove_leftovers(target, before, name)


def load(folder: str | os.PathLike[str], classes: Sequence[type[nn.Module]] = ()) -> Any:
    """The object that ``save`` wrote to ``folder``, on the CPU and in evaluation mode.

    Nothing in the folder is run: only classes of this library and of ``torch.nn`` are made.

    Args:
        folder: A folder written by ``save``, by whomever.
        classes: Classes of your own that the object is made of. They are found by their module and
            name; one that has moved to another module, by its name alone.

    Returns:
        The model, denoiser, student, network or detector.

    Raises:
        FileNotFoundError: There is no such folder, or a file is missing in it.
        ValueError: The folder is damaged, of another version, names another class, or its
            configuration and its tensors do not fit each other.
    """
    module = read(folder, classes)
    with reading(config_path(folder), WHAT):
        return module.restored() if isinstance(module, Artefact) else module


def read(folder: str | os.PathLike[str], classes: Sequence[type[nn.Module]] = ()) -> nn.Module:
    """The module that ``save`` wrote, which may hold the state of something else."""
    path = config_path(folder)
    check_kind("load", Sequence, classes=classes)
    for cls in classes:
        check_kind("load", type, classes=cls)
    record = read_record(path)
    with reading(path, WHAT):
        try:
            tensors = read_weights(path.parent, record["weights"])
        except Exception:
            if read_record(path) == record:
                raise
            return read(folder, classes)  # a save has put another object in its place
        module = rebuild(record["object"], tensors, tuple(classes), f"{path}: object")
        set_traits(module, record["weights"])
        return module


def config_path(folder: str | os.PathLike[str]) -> Path:
    """The configuration in a folder that ``save`` wrote."""
    return Path(folder).expanduser() / CONFIG


def is_saved(folder: str | os.PathLike[str]) -> bool:
    """Whether ``folder`` holds an object that ``save`` wrote, and not one of another library."""
    path = config_path(folder)
    return path.is_file() and "format" in read_json(path)


def read_record(path: Path) -> dict[str, Any]:
    """The content of ``config.json``, checked against its version and its hash."""
    record = read_json(path, "the configuration of a saved object")
    if record.get("format") != FORMAT or record.keys() != KEYS:
        raise ValueError(
            f"{path} must hold a saved object of format {FORMAT}, got format "
            f"{record.get('format')!r}, written by {str(record.get('library'))[:50]!r}"
        )
    if record.pop("sha256") != fingerprint(record):
        raise ValueError(f"{path} must be as it was saved: it is damaged or edited, its hash says")
    return record


def read_weights(folder: Path, named: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors in the file of ``folder`` that a configuration has ``named``."""
    if not WEIGHTS.fullmatch(named["file"]):
        raise ValueError(f"its weights must be called weights-HASH.safetensors, got {named}")
    path = check_file(folder / named["file"], "the weights of a saved object")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() != named["sha256"]:
        raise ValueError(f"{path} must be as it was saved: it is damaged, its hash says")
    tensors = load_file(path)
    for name, value in tensors.items():
        check_tensor(f"{name} in {path}", value)
    return tensors


def rebuild(
    tree: Node, tensors: dict[str, Tensor], own: tuple[type, ...], place: str = "object"
) -> nn.Module:
    """The module that ``tree`` describes, in evaluation mode, with its ``tensors``.

    It is made without memory first, so that one that is larger than its tensors is refused before
    it takes any. Modules of the user's ``own`` may not stand that.
    """
    own = tuple(cls for cls in own if not is_inside(cls.__module__, (*OURS, "torch")))
    if not own:
        with rehearsal():
            blank = {name: value.to("meta") for name, value in tensors.items()}
            allowed = Allowed(OURS, {}, PARTS, own, blank)
            fill(build(tree, nn.Module, place, allowed), blank, tree)
    # loading draws no random numbers of the user's
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        module = build(tree, nn.Module, place, Allowed(OURS, {}, PARTS, own, tensors))
    fill(module, tensors, tree)
    for name, parameter in module.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise ValueError(f"{name} must be finite, got infinity")
    return module.eval()


def fingerprint(record: Mapping[str, object]) -> str:
    """The hash of a configuration without its hash."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def check_place(folder: str | os.PathLike[str]) -> Path:
    """``folder``, which is new, empty, or holds a saved object and nothing else."""
    target = Path(folder).expanduser()
    if target.is_dir():
        names = [path.name for path in target.iterdir()]
        other = [
            n for n in names if n != CONFIG and not WEIGHTS.fullmatch(n) and not DRAFT.match(n)
        ]
        if CONFIG in names and not is_saved(target):
            other.append(CONFIG)
        if other:
            raise FileExistsError(
                "folder must be new, empty or one of a saved object, got "
                f"{str(target)!r}, which holds {min(other)!r}"
            )
    elif os.path.lexists(target):
        raise FileExistsError(f"folder must be a folder, got the file {str(target)!r}")
    return target


def weights_named_in(folder: Path) -> str | None:
    """The file of weights of the object that ``folder`` holds now, if it can be read."""
    with suppress(OSError, ValueError, KeyError):
        return read_record(folder / CONFIG)["weights"]["file"]
    return None


def remove_leftovers(folder: Path, before: str | None, now: str) -> None:
    """Remove the weights of the object ``before``, and what killed saves have left."""
    for path in folder.iterdir():
        if path.name in (CONFIG, now):
            continue
        with suppress(FileNotFoundError):  # another process may have removed or renamed it
            if path.name == before or time.time() - path.stat().st_mtime > OLD:
                path.unlink()
