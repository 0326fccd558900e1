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
from latent_ebm.kernels import KernelPrior

Detector = TypeVar("Detector")
FORMAT = "latent_ebm detector 2"
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
        "dims": [view.kernels.base.exemplars.shape[1] for view in detector.views_],
        "num_stages": len(getattr(detector.views_[0].prior, "stages", ())),
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
    detector.scaler_ = StandardScaler()
    features = parts.blank_features(detector.image_shape, detector.latent_dim, detector.channels)
    sizes = (num_features,) if detector.image_shape is None else (detector.latent_dim + 1, detector.latent_dim)
    detector.views_ = tuple(
        parts.linear(part, size, dim, blank_prior(torch.zeros(len(tensors["rows_"]), dim), record)).double()
        for part, size, dim in zip(features, sizes, record["dims"], strict=True)
    )
    for i, view in enumerate(detector.views_):
        own = {k.removeprefix(f"views_.{i}."): value for k, value in tensors.items() if k.startswith(f"views_.{i}.")}
        view.eval().requires_grad_(False).load_state_dict(own, assign=True)
        view.prior.sampler = parts.chains(view.kernels.base)
    for name, value in (tensors | numbers).items():
        head, *rest = name.split(".")
        if head == "scaler_":
            setattr(detector.scaler_, rest[0], value.numpy() if isinstance(value, Tensor) else value)
        elif not rest:
            setattr(detector, name, np.array(value, dtype=object) if isinstance(value, list) else value)


def blank_prior(exemplars: Tensor, record: dict[str, Any]) -> parts.KernelsPrior:
    """A prior of the right shapes."""
    kernels = KernelPrior(exemplars, 1.0)
    if record["parameters"]["image_shape"] is None:
        return parts.ratio_prior(kernels, record["num_stages"])
    return parts.neighbour_prior(kernels, kernels.bandwidth)


def fitted(estimator: Any) -> dict[str, Any]:
    """What ``fit`` left on an estimator, by name."""
    return {name: value for name, value in vars(estimator).items() if name.endswith("_") and not name.startswith("_")}


def flatten(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Tensors and plain values of ``values``, modules, tuples and estimators taken apart: ``name.part``."""
    for name, value in values.items():
        if isinstance(value, nn.Module):
            inner = value.state_dict()
        elif isinstance(value, tuple):
            inner = {str(i): part for i, part in enumerate(value)}
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
