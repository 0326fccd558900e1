"""A fitted detector as a folder of two files: ``detector.json``, to be read by people too, and ``detector.safetensors``.

The JSON holds parameters, numbers, the sizes from which blank modules are made, and the hash of the other file, whose tensors
fill them. It is written last, so that a folder in which writing was cut short is no detector. Nothing is unpickled.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load, save
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from latent_ebm.applications import detector_model as parts
from latent_ebm.applications.pictures import atomic_path
from latent_ebm.networks import EnergyMLP
from latent_ebm.priors import KernelPrior, RatioPrior
from samplers import MALA

Detector = TypeVar("Detector")
FORMAT = "latent_ebm detector 1"
JSON_NAME, TENSORS_NAME = "detector.json", "detector.safetensors"


def save_detector(detector: Any, folder: str | os.PathLike[str]) -> None:
    """Write the fitted ``detector`` to ``folder``, which is made if need be, in place of one that is there.

    A ``random_state`` that is an object is stored as None: what it would do is no part of what was learnt, and only another
    ``fit`` would ask. Raises ``OSError`` where nothing can be written.
    """
    state = dict(flatten(fitted(detector)))
    tensors = {name: value.contiguous().clone() for name, value in state.items() if isinstance(value, Tensor)}
    content = save(tensors)
    record = {
        "format": FORMAT,
        "version": metadata.version("latent-ebm"),
        "class": type(detector).__name__,
        "parameters": {name: plain(value) for name, value in detector.get_params(deep=False).items()},
        "numbers": {name: plain(value) for name, value in state.items() if name not in tensors},
        "shapes": {name: list(value.shape) for name, value in tensors.items()},
        "sampler": vars(detector.prior_.sampler),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    text = json.dumps(record, indent=1, allow_nan=False)
    (Path(folder) / JSON_NAME).unlink(missing_ok=True)
    with atomic_path(Path(folder) / TENSORS_NAME) as draft:
        draft.write_bytes(content)
    with atomic_path(Path(folder) / JSON_NAME) as draft:
        draft.write_text(text + "\n")


def load_detector(cls: type[Detector], folder: str | os.PathLike[str]) -> Detector:
    """The detector of class ``cls`` that ``save_detector`` wrote to ``folder``: the same scores, bit for bit.

    Raises ``FileNotFoundError`` if a file is missing, ``ValueError`` if one is damaged or of another kind.
    """
    record, tensors = read(Path(folder))
    if record["class"] != cls.__name__:
        raise ValueError(f"{folder} must hold a {cls.__name__}, got a {record['class']}")
    try:
        parameters = {k: tuple(v) if isinstance(v, list) else v for k, v in record["parameters"].items()}
        detector: Any = cls(**parameters)
        restore(detector, record, tensors)
    except (KeyError, RuntimeError, TypeError) as error:
        version = record.get("version")
        raise ValueError(
            f"{folder} must hold a detector as this version saves it, got version {version}: {error}"
        ) from error
    return detector


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record and the tensors of a folder, checked against each other."""
    for name in (JSON_NAME, TENSORS_NAME):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"folder must hold a saved detector, got {folder}: it has no {name}")
    content = (folder / TENSORS_NAME).read_bytes()
    try:
        record = json.loads((folder / JSON_NAME).read_text())
    except ValueError as error:
        raise ValueError(f"{folder / JSON_NAME} must be JSON: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f'{folder / JSON_NAME} must be of format "{FORMAT}"')
    if hashlib.sha256(content).hexdigest() != record.get("sha256"):
        raise ValueError(
            f"{folder / TENSORS_NAME} must be the file that {JSON_NAME} names by its sha256: it is damaged"
        )
    return record, {name: value.clone() for name, value in load(content).items()}  # clones are aligned


def restore(detector: Any, record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Give the blank ``detector`` its fitted attributes."""
    numbers, num_features = record["numbers"], record["numbers"]["n_features_in_"]
    dim = tensors["prior_.base.exemplars"].shape[1]
    detector.scaler_ = StandardScaler()
    features = parts.blank_features(detector.image_shape, detector.latent_dim, detector.channels)
    num = num_features if detector.image_shape is None else detector.latent_dim
    detector.coder_ = parts.blank_coder(features, num, dim)
    detector.prior_ = blank_prior(tensors["prior_.base.exemplars"], len(tensors["prior_.weights"]), record["sampler"])
    for name, module in modules(detector):
        own = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}
        module.eval().requires_grad_(False).load_state_dict(own, assign=True)
    for name, value in (tensors | numbers).items():
        head, *rest = name.split(".")
        if head == "scaler_":
            setattr(detector.scaler_, rest[0], value.numpy() if isinstance(value, Tensor) else value)
        elif not rest:
            setattr(detector, name, np.array(value, dtype=object) if isinstance(value, list) else value)


def blank_prior(exemplars: Tensor, num_stages: int, sampler: dict[str, Any]) -> RatioPrior:
    """A prior of the right shapes."""
    stages = [EnergyMLP(exemplars.shape[1], parts.HIDDEN, "silu") for _ in range(num_stages)]
    return RatioPrior(KernelPrior(exemplars, 1.0), stages, MALA(**sampler))


def fitted(estimator: Any) -> dict[str, Any]:
    """What ``fit`` left on an estimator, by name."""
    return {name: value for name, value in vars(estimator).items() if name.endswith("_") and not name.startswith("_")}


def modules(detector: Any) -> Iterator[tuple[str, nn.Module]]:
    """The detector's modules by the names of their tensors."""
    yield from ((f"coder_.{name}", module) for name, module in detector.coder_._asdict().items())
    yield "prior_", detector.prior_


def flatten(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Tensors and plain values of ``values``, modules, tuples and estimators taken apart: ``name.part``."""
    for name, value in values.items():
        if isinstance(value, nn.Module):
            inner = value.state_dict()
        elif hasattr(value, "_asdict"):
            inner = value._asdict()
        elif hasattr(value, "get_params"):
            inner = fitted(value)
        else:
            yield name, torch.from_numpy(value) if is_numeric(value) else value
            continue
        yield from ((f"{name}.{key}", part) for key, part in flatten(inner))


def is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def plain(value: Any) -> Any:
    """``value`` as JSON has it; a random state object is None."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, np.random.RandomState | np.random.Generator):
        return None
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value
