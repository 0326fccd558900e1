"""A fitted detector as a saved object: what ``fit`` has left on it, and notes of whoever saves.

A detector is an estimator of scikit-learn and no module. ``FittedDetector`` is the module that
holds its state, so that one format and one ``load`` serve detectors and models: the detector, the
scores that it was calibrated with and the names of its columns come from one fit or are refused.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.preprocessing import StandardScaler
from torch import Tensor, from_numpy, nn

from latent_ebm.artefacts import Artefact, Described
from latent_ebm.artefacts.folders import config_path, read
from latent_ebm.detection.parts import View
from latent_ebm.foreign import reading

Detector = TypeVar("Detector", bound=Described)
WHAT = "a detector that this version can load"


class FittedDetector(Artefact):
    """The state of a fitted detector; ``load`` makes the detector of it.

    Args:
        detector: The detector, not fitted.
        numbers: Plain values that ``fit`` has left, by the name of the attribute.
        arrays: Arrays and tensors that ``fit`` has left.
        views: The views of a row.
        notes: Plain values and tensors of whoever saves.
    """

    def __init__(
        self,
        detector: Described,
        numbers: dict[str, object],
        arrays: dict[str, Tensor],
        views: Sequence[View],
        notes: dict[str, object],
    ) -> None:
        super().__init__()
        self.detector, self.numbers, self.arrays = detector, numbers, arrays
        self.views, self.notes = nn.ModuleList(views), notes

    def restored(self) -> Described:
        """The detector, fitted. Raises ``ValueError`` unless it scores."""
        import pandas as pd

        detector: Any = self.detector
        if isinstance(detector.image_shape, list):
            detector.image_shape = tuple(detector.image_shape)
        detector.scaler_, detector.views_ = StandardScaler(), tuple(self.views)
        for view in detector.views_:
            view.requires_grad_(False)
        for name, value in (self.arrays | self.numbers).items():
            set_fitted(detector, name, value)
        if not (isinstance(detector.offset_, float) and math.isfinite(detector.offset_)):
            raise ValueError(f"offset_ must be a finite number, got {detector.offset_!r}")
        row = pd.DataFrame(
            detector.scaler_.inverse_transform(detector.rows_[:1].flatten(1).numpy()),
            columns=getattr(detector, "feature_names_in_", None),
        )
        if not np.isfinite(detector.score_samples(row)).all():
            raise ValueError("its scores must be finite")
        return detector


def set_fitted(detector: Any, name: str, value: object) -> None:
    """Set the attribute ``name`` of ``detector``, or ``scaler_.name`` of its scaler."""
    owner, _, inner = name.rpartition(".")
    if not name.endswith("_") or name.startswith("_") or owner not in ("", "scaler_"):
        raise ValueError(f"what was fitted must have names that end with _, got {name!r}")
    if isinstance(value, list):
        value = np.array(value, dtype=object)  # names of columns
    if owner and isinstance(value, Tensor):
        value = value.numpy()
    setattr(detector.scaler_ if owner else detector, inner, value)


def save_detector(
    detector: BaseEstimator,
    folder: str | os.PathLike[str],
    notes: Mapping[str, object] | None = None,
) -> None:
    """Write the fitted ``detector`` to ``folder``, in place of an older one.

    ``notes``, plain values and tensors by name, come back with it. A ``random_state`` that is an
    object is stored as None: it is no part of what was learnt, and only another ``fit`` would use
    it. Raises as ``latent_ebm.save``.
    """
    state = dict(flatten(fitted(detector)))
    arrays = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    numbers = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in state.items()
        if name not in arrays
    }
    parameters = detector.get_params(deep=False)
    if isinstance(parameters["random_state"], np.random.RandomState):
        parameters["random_state"] = None
    blank: Any = type(detector)(**parameters)
    views = vars(detector)["views_"]
    FittedDetector(blank, numbers, arrays, views, dict(notes or {})).save(folder)


def load_detector(
    cls: type[Detector], folder: str | os.PathLike[str]
) -> tuple[Detector, dict[str, Any]]:
    """The detector of class ``cls`` that ``save_detector`` wrote, with the same scores to the last
    bit, and its notes.

    Raises ``FileNotFoundError`` if there is none, ``ValueError`` if it is damaged or of another
    kind.
    """
    found = read(folder)
    with reading(config_path(folder), WHAT):
        detector = found.restored() if isinstance(found, FittedDetector) else found
        if not (isinstance(found, FittedDetector) and isinstance(detector, cls)):
            raise ValueError(f"it must be a {cls.__name__}, got a {type(detector).__name__}")
        return detector, found.notes


def fitted(estimator: BaseEstimator) -> dict[str, object]:
    """What ``fit`` has left on an estimator, by name, without the views of a detector."""
    return {
        name: value
        for name, value in vars(estimator).items()
        if name.endswith("_") and not name.startswith("_") and name != "views_"
    }


def flatten(values: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Tensors and plain values of ``values``, the scaler taken apart: ``scaler_.mean_``."""
    for name, value in values.items():
        if isinstance(value, BaseEstimator):
            yield from ((f"{name}.{key}", part) for key, part in flatten(fitted(value)))
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.ndim:
            yield name, from_numpy(value)
        else:
            yield name, value
