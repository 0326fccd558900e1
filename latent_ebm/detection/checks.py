"""What ``LatentEBMDetector`` asks of its parameters and rows."""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data
from torch import Tensor, nn

from samplers.checks import check_counts, is_real, is_whole

Owner = TypeVar("Owner")
Result = TypeVar("Result")
P = ParamSpec("P")
Energy = Literal["joint", "reconstruction", "prior", "elbo"]
ENERGIES = get_args(Energy)
MIN_SIDE = 8  # pixels, of images whose features are learned
MIN_IMAGES = 10  # to learn features from
LIMIT = 1e100  # largest magnitude: its square, and quotients of squares, are still finite


def validated(estimator: BaseEstimator, X: ArrayLike, **rules: Any) -> NDArray[np.float64]:
    """X as scikit-learn checks it for ``estimator``, with the ``rules`` of ``validate_data``."""
    data: Any = X  # for which scikit-learn's function declares no type
    return np.asarray(validate_data(estimator, data, **{"dtype": np.float64, **rules}))


def all_or_nothing(
    method: Callable[Concatenate[Owner, P], Result],
) -> Callable[Concatenate[Owner, P], Result]:
    """``method``, which leaves the attributes of its object as they were if it raises: half of a
    new fit with half of an old one would score, and score wrongly. It must set new objects, and
    copy an old one before it changes it in place.
    """

    @wraps(method)
    def whole(self: Owner, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        before = dict(vars(self))
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    return whole


def check_finite_rows(name: str, x: Tensor) -> Tensor:
    """``x`` (n, d). Raises ``ValueError`` that counts rows with entries that are not finite."""
    bad = int((~x.isfinite().all(1)).sum())
    if bad:
        raise ValueError(f"{name} must be finite: {bad} of {len(x)} rows have others")
    return x


def check_parameters(detector: BaseEstimator) -> None:
    """Raise ``ValueError`` naming the parameter, its rule and its value."""
    given = detector.get_params(deep=False)
    counts = {name: given[name] for name in ("latent_dim", "max_steps", "channels")}
    check_counts(detector, **counts)
    check_counts(detector, 0, max_stages=given["max_stages"])
    check_counts(detector, 2, max_exemplars=given["max_exemplars"])
    energy, encoder, shape = given["energy"], given["encoder"], given["image_shape"]
    trim = given["trim"]
    rules = {
        "energy": (
            isinstance(energy, str) and energy in ENERGIES,
            f"one of {', '.join(ENERGIES)}",
        ),
        "contamination": (_is_fraction(given["contamination"]), '"auto" or a number in (0, .5]'),
        "trim": (is_real(trim) and 0 <= trim < 0.5, "a number in [0, .5)"),
        "image_shape": (
            shape is None or _is_shape(shape),
            f"None or (C, H, W), H and W at least {MIN_SIDE}",
        ),
        "encoder": (encoder is None or isinstance(encoder, nn.Module), "None or an nn.Module"),
    }
    for name, (valid, rule) in rules.items():
        if not valid:
            raise ValueError(f"{name} must be {rule}, got {given[name]!r}")
    if encoder is not None and shape is None:
        raise ValueError(
            f"encoder must be None where image_shape is, got a {type(encoder).__name__}"
        )
    if energy == "reconstruction" and shape is not None:
        raise ValueError(
            'energy must not be "reconstruction" for images, whose codes leave next to nothing out'
        )


def check_columns(
    X: np.ndarray, energy: Energy, latent_dim: int, image_shape: Sequence[int] | None
) -> None:
    """Raise ``ValueError`` for numbers too large, too few columns, or rows that are not images of
    ``image_shape``.
    """
    check_magnitude(X)
    if image_shape is None:
        if energy == "reconstruction" and latent_dim >= X.shape[1]:
            raise ValueError(
                f'energy must not be "reconstruction" for {X.shape[1]} columns, of which codes '
                f"of latent_dim = {latent_dim} numbers leave nothing out"
            )
        return
    if math.prod(image_shape) != X.shape[1]:
        raise ValueError(
            f"X must hold images of image_shape {tuple(image_shape)}, got rows of "
            f"{X.shape[1]} numbers"
        )
    if len(X) < MIN_IMAGES:
        raise ValueError(
            f"X must hold at least {MIN_IMAGES} images to learn features from, got {len(X)}"
        )


def check_magnitude(X: np.ndarray) -> None:
    """Raise ``ValueError`` for numbers whose squares overflow."""
    largest = np.abs(X).max()
    if largest > LIMIT:
        raise ValueError(
            f"X must hold numbers and standardised numbers of magnitude at most {LIMIT:.0e}, got "
            f"{largest:.3g}"
        )


def _is_shape(value: object) -> bool:
    if not (isinstance(value, Sequence) and len(value) == 3):
        return False
    return all(
        is_whole(n) and n >= least for n, least in zip(value, (1, MIN_SIDE, MIN_SIDE), strict=True)
    )


def _is_fraction(value: Any) -> bool:
    if isinstance(value, str):
        return value == "auto"
    return is_real(value) and 0 < value <= 0.5
