"""What ``LatentEBMDetector`` asks of its parameters and rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

ENERGIES = ("joint", "reconstruction", "prior", "elbo")
MIN_SIDE = 8  # pixels, of images whose features are learnt
LIMIT = 1e100  # of magnitudes whose squares, and quotients of these, are finite


def check_parameters(detector: Any) -> None:
    """Raise ``ValueError`` naming the parameter, its rule and its value."""
    rules = {
        "energy": (detector.energy in ENERGIES, f"one of {', '.join(ENERGIES)}"),
        "contamination": (_is_fraction(detector.contamination), '"auto" or a number in (0, .5]'),
        "trim": (_is_number(detector.trim) and 0 <= detector.trim < 0.5, "a number in [0, .5)"),
        "image_shape": (
            detector.image_shape is None or _is_shape(detector.image_shape),
            f"None or (C, H, W), H and W at least {MIN_SIDE}",
        ),
        "latent_dim": (_is_count(detector.latent_dim, 1), "an integer >= 1"),
        "max_stages": (_is_count(detector.max_stages, 0), "an integer >= 0"),
        "max_exemplars": (_is_count(detector.max_exemplars, 2), "an integer >= 2"),
        "max_steps": (_is_count(detector.max_steps, 1), "an integer >= 1"),
        "channels": (_is_count(detector.channels, 1), "an integer >= 1"),
    }
    for name, (valid, rule) in rules.items():
        if not valid:
            raise ValueError(f"{name} must be {rule}, got {getattr(detector, name)!r}")
    if detector.energy == "reconstruction" and detector.image_shape is not None:
        raise ValueError('energy must not be "reconstruction" for images, whose codes leave next to nothing out')


def check_magnitude(X: np.ndarray) -> None:
    """Raise ``ValueError`` for numbers whose squares overflow."""
    largest = np.abs(X).max()
    if largest > LIMIT:
        raise ValueError(
            f"X must hold numbers and standardised numbers of magnitude at most {LIMIT:.0e}, got {largest:.3g}"
        )


def _is_shape(value: Any) -> bool:
    if not (isinstance(value, Sequence) and len(value) == 3):
        return False
    return all(_is_count(size, least) for size, least in zip(value, (1, MIN_SIDE, MIN_SIDE), strict=True))


def _is_fraction(value: Any) -> bool:
    return value == "auto" if isinstance(value, str) else _is_number(value) and bool(0 < value <= 0.5)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)
