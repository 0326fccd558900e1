"""What ``LatentEBMDetector`` asks of its parameters and rows."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, get_args

import numpy as np
from torch import nn

from samplers.checks import check_counts, is_a

Energy = Literal["joint", "reconstruction", "prior", "elbo"]
ENERGIES = get_args(Energy)
MIN_SIDE = 8  # pixels, of images whose features are learnt
LIMIT = 1e100  # of magnitudes whose squares, and quotients of these, are finite


def check_parameters(detector: Any) -> None:
    """Raise ``ValueError`` naming the parameter, its rule and its value."""
    check_counts(
        detector,
        latent_dim=detector.latent_dim,
        max_steps=detector.max_steps,
        channels=detector.channels,
    )
    check_counts(detector, 0, max_stages=detector.max_stages)
    check_counts(detector, 2, max_exemplars=detector.max_exemplars)
    encoder, shape, trim = detector.encoder, detector.image_shape, detector.trim
    rules = {
        "energy": (
            isinstance(detector.energy, str) and detector.energy in ENERGIES,
            f"one of {', '.join(ENERGIES)}",
        ),
        "contamination": (_is_fraction(detector.contamination), '"auto" or a number in (0, .5]'),
        "trim": (is_a(Real, trim) and 0 <= trim < 0.5, "a number in [0, .5)"),
        "image_shape": (
            shape is None or _is_shape(shape),
            f"None or (C, H, W), H and W at least {MIN_SIDE}",
        ),
        "encoder": (encoder is None or isinstance(encoder, nn.Module), "None or an nn.Module"),
    }
    for name, (valid, rule) in rules.items():
        if not valid:
            raise ValueError(f"{name} must be {rule}, got {getattr(detector, name)!r}")
    if encoder is not None and shape is None:
        raise ValueError(
            f"encoder must be None where image_shape is, got a {type(encoder).__name__}"
        )
    if detector.energy == "reconstruction" and shape is not None:
        raise ValueError(
            'energy must not be "reconstruction" for images, whose codes leave next to nothing out'
        )


def check_magnitude(X: np.ndarray) -> None:
    """Raise ``ValueError`` for numbers whose squares overflow."""
    largest = np.abs(X).max()
    if largest > LIMIT:
        raise ValueError(
            f"X must hold numbers and standardised numbers of magnitude at most {LIMIT:.0e}, got "
            f"{largest:.3g}"
        )


def _is_shape(value: Any) -> bool:
    if not (isinstance(value, Sequence) and len(value) == 3):
        return False
    return all(
        is_a(Integral, n) and n >= least
        for n, least in zip(value, (1, MIN_SIDE, MIN_SIDE), strict=True)
    )


def _is_fraction(value: Any) -> bool:
    return value == "auto" if isinstance(value, str) else is_a(Real, value) and 0 < value <= 0.5
