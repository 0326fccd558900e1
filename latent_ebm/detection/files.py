"""A fitted detector as a folder with one file, ``detector.safetensors``, which replaces an older
one in one step.

Its tensors fill modules of the sizes they have; its header holds a record in JSON: parameters,
numbers, ``notes`` of whoever saves, and a hash of all of this and of the tensors. So a detector,
the scores it was calibrated with and the names of its columns are never those of two fits,
wherever a write is cut short and however many write at once. Nothing is unpickled.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from latent_ebm.detection import parts
from latent_ebm.foreign import check_file, reading
from latent_ebm.kernels import KernelPrior
from latent_ebm.writing import atomic_path

Detector = TypeVar("Detector")
FORMAT = "latent_ebm detector 3"
FILE_NAME, KEY = "detector.safetensors", "latent_ebm"
WHAT = "a detector as this version saves it"


def save_detector(
    detector: Any, folder: str | os.PathLike[str], notes: dict[str, Any] | None = None
) -> None:
    """Write the fitted ``detector`` to ``folder``, which is made if need be, in place of an older
    one.

    ``notes``, plain values by name, come back with it. A ``random_state`` that is an object is
    stored as None: what it would do is no part of what was learnt, and only another ``fit`` would
    ask. Raises ``OSError`` where nothing can be written, ``ValueError`` for a number that is not
    finite.
    """
    state = dict(flatten(fitted(detector)))
    tensors = {k: v.contiguous().clone() for k, v in state.items() if isinstance(v, Tensor)}
    record = {
        "format": FORMAT,
        "version": metadata.version("latent-ebm"),
        "class": type(detector).__name__,
        "parameters": {k: plain(v) for k, v in detector.get_params(deep=False).items()},
        "numbers": {k: plain(v) for k, v in state.items() if k not in tensors},
        "notes": notes or {},
    }
    text = json.dumps({**record, "sha256": fingerprint(record, tensors)}, allow_nan=False)
    content, path = save(tensors, {KEY: text}), Path(folder).expanduser() / FILE_NAME
    with atomic_path(path) as draft:
        draft.write_bytes(content)
    remove_leftovers(path)


def remove_leftovers(path: Path) -> None:
    """Remove what writes to ``path`` left when they were killed, an hour ago or more: none is so
    slow.
    """
    for draft in path.parent.glob(f".{FILE_NAME}.*.tmp"):
        with suppress(FileNotFoundError):  # another process may have finished it
            if time.time() - draft.stat().st_mtime > 3600:
                draft.unlink()


def load_detector(
    cls: type[Detector], folder: str | os.PathLike[str]
) -> tuple[Detector, dict[str, Any]]:
    """The detector of class ``cls`` that ``save_detector`` wrote, the same scores bit for bit, and
    its notes.

    Raises ``FileNotFoundError`` if there is none, ``ValueError`` if it is damaged or of another
    kind.
    """
    path = check_file(Path(folder) / FILE_NAME, "a saved detector")
    with reading(path, WHAT):
        record, tensors = read(path)
        if record["class"] != cls.__name__:
            raise ValueError(f"{path} must hold a {cls.__name__}, got a {record['class']}")
        parameters = {
            k: tuple(v) if isinstance(v, list) else v for k, v in record["parameters"].items()
        }
        detector: Any = cls(**parameters)
        restore(detector, record["numbers"], tensors)
        return detector, dict(record["notes"])


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record and the tensors of a file, checked against their hash."""
    with safe_open(path, "pt") as file:
        record = json.loads((file.metadata() or {}).get(KEY, "{}"), parse_constant=refuse)
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise ValueError(
                f'it must be of format "{FORMAT}"; fit and save older detectors again'
            )
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    if record.pop("sha256", None) != fingerprint(record, tensors):
        raise ValueError("it is damaged, as its hash says")
    return record, tensors


def refuse(name: str) -> None:
    raise ValueError(f"numbers must be finite, got {name}")


def fingerprint(record: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """A hash of all that is kept."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def restore(detector: Any, numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Give the blank ``detector`` its fitted attributes, and see whether it scores."""
    offset = numbers["offset_"]
    if not (isinstance(offset, float) and math.isfinite(offset)):
        raise ValueError(f"offset_ must be a finite number, got {offset!r}")
    detector.scaler_ = StandardScaler()
    detector.views_ = blank_views(detector, tensors)
    for i, view in enumerate(detector.views_):
        own = of(tensors, f"views_.{i}.")
        view.eval().requires_grad_(False).load_state_dict(own, assign=True)
        view.prior.sampler = parts.chains(view.kernels.base)
    for name, value in (tensors | numbers).items():
        head, *rest = name.split(".")
        if head == "scaler_":
            setattr(
                detector.scaler_, rest[0], value.numpy() if isinstance(value, Tensor) else value
            )
        elif not rest:
            if not name.endswith("_") or name.startswith("_"):
                raise ValueError(f"what was fitted must have names that end with _, got {name!r}")
            setattr(
                detector, name, np.array(value, dtype=object) if isinstance(value, list) else value
            )
    row = detector.scaler_.inverse_transform(detector.rows_[:1].flatten(1).numpy())
    if not np.isfinite(detector.score_samples(row)).all():
        raise ValueError("its scores must be finite")


def blank_views(detector: Any, tensors: dict[str, Tensor]) -> tuple[parts.View, ...]:
    """Views of the right shapes: nothing is as large as a record says, but as the tensors are."""
    with torch.device("meta"):
        features = parts.blank_features(
            detector.image_shape, detector.latent_dim, detector.channels
        )
    table = detector.image_shape is None
    sizes = (
        [tensors["rows_"].shape[1]] if table else [detector.latent_dim + 1, detector.latent_dim]
    )
    views = []
    for i, (part, size) in enumerate(zip(features, sizes, strict=True)):
        own = of(tensors, f"views_.{i}.prior.")
        prior, dim = blank_prior(own), own["base.exemplars"].shape[1]
        with torch.device("meta"):
            views.append(parts.linear(part, size, dim, prior).double())
    return tuple(views)


def blank_prior(tensors: dict[str, Tensor]) -> parts.KernelsPrior:
    """A prior of the shapes of ``tensors``."""
    kernels = KernelPrior(torch.zeros_like(tensors["base.exemplars"]), 1.0)
    if "log_heights" in tensors:
        return parts.neighbour_prior(kernels, kernels.bandwidth)
    return parts.ratio_prior(
        kernels, len({name.split(".")[1] for name in tensors if name.startswith("stages.")})
    )


def of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}


def fitted(estimator: Any) -> dict[str, Any]:
    """What ``fit`` left on an estimator, by name."""
    return {
        name: value
        for name, value in vars(estimator).items()
        if name.endswith("_") and not name.startswith("_")
    }


def flatten(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Tensors and plain values of ``values``, modules, tuples and estimators taken apart:
    ``name.part``.
    """
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
