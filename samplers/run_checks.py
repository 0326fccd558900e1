"""Checks of a run: of its start, of its end, and of what can be looked at in between."""

import math
import reprlib

import torch
from torch import Tensor


def is_readable(x: Tensor) -> bool:
    """Whether values of ``x`` can be looked at: not on the meta device, nor while a CUDA graph or
    a graph of ``torch.export`` or ``torch.compile`` is made.
    """
    if x.is_meta or torch.compiler.is_compiling():
        return False
    return not (x.is_cuda and torch.cuda.is_current_stream_capturing())


def check_finite(name: str, x: Tensor, hint: str = "") -> None:
    """Raise ``FloatingPointError`` if ``x`` (n, ...) ``is_readable`` and has a non-finite
    entry.
    """
    if not is_readable(x) or bool(torch.isfinite(x).all()):
        return
    bad = (
        int((~torch.isfinite(x)).flatten(1).any(1).sum())
        if x.ndim > 1
        else int((~torch.isfinite(x)).sum())
    )
    raise FloatingPointError(
        f"{name} must be finite: {bad} of {len(x)} are not{hint and '; ' + hint}"
    )


def check_position(x: Tensor, name: str = "position") -> None:
    """Raise ``ValueError`` unless ``x`` is a floating tensor (chains, \\*event), event not
    empty.
    """
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 2):
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else reprlib.repr(x)
        raise ValueError(
            f"{name} must be a floating tensor (chains, *event) with an event of one axis or "
            f"more, got {got}"
        )


def check_start(x: Tensor, log_density: Tensor, grad: Tensor) -> None:
    """Check position, log-density and gradient at the start of a run, once.

    Raises ``ValueError`` for a position that is not finite or where the density is zero, and
    ``FloatingPointError`` for a density or a gradient that is not finite.
    """
    if not is_readable(x) or bool(log_density.isfinite().all() & grad.isfinite().all()):
        return
    count, outside = len(x), int((log_density == -math.inf).sum())
    if bad := int((~x.isfinite()).flatten(1).any(1).sum()):
        raise ValueError(f"position must be finite at the start: {bad} of {count} chains are not")
    if outside:
        raise ValueError(
            "position must lie inside the support at the start: log_density is -inf at "
            f"{outside} of {count} chains"
        )
    check_finite("log_density at the start", log_density)
    check_finite("gradient of log_density at the start", grad)


def check_end(
    sampler: object, x: Tensor, log_density: Tensor, log_ratio: Tensor | None = None
) -> None:
    """Check the end of a run, once: positions, their densities, and those of the last proposals.

    Raises ``FloatingPointError`` if a chain diverged, or if the ``log_ratio`` (chains,) of the
    last Metropolis test is NaN for most chains.
    """
    check_finite("position", x, f"a chain of {sampler} diverged: use a smaller step_size")
    check_finite(
        "log_density", log_density, f"a chain of {sampler} went where it is NaN or infinite"
    )
    undefined = 0 if log_ratio is None or not is_readable(x) else int(log_ratio.isnan().sum())
    if undefined > len(x) / 2:
        raise FloatingPointError(
            "log_density must be finite along a chain: it is NaN or inf at the last proposals "
            f"of {undefined} of {len(x)} "
            f"chains of {sampler}; use a smaller step_size, or mend it there"
        )
