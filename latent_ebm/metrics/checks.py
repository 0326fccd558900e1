"""Sets of samples as metrics take them: finite matrices of equal width."""

from torch import Tensor

from samplers.checks import check_kind


def check_finite(name: str, value: Tensor) -> None:
    """Raise ``ValueError`` unless ``value`` is real and finite."""
    if value.is_complex():
        raise ValueError(f"{name} must be real, got {value.dtype}")
    finite = value.isfinite()
    if not bool(finite.all()):
        raise ValueError(
            f"{name} must be finite, got {int((~finite).sum())} NaN or infinite entries"
        )


def as_matrix(name: str, value: Tensor, min_rows: int) -> Tensor:
    """``value`` (n, d) in float64. Raises ``ValueError`` unless it is a real and finite matrix
    with at least ``min_rows`` rows.
    """
    check_kind("metrics", Tensor, **{name: value})
    if value.ndim != 2 or value.shape[1] == 0 or value.is_complex():
        raise ValueError(
            f"{name} must be a real matrix (n, d), got shape {tuple(value.shape)} of {value.dtype}"
        )
    if len(value) < min_rows:
        raise ValueError(f"{name} must have at least {min_rows} rows, got {len(value)}")
    check_finite(name, value)
    return value.detach().double()


def as_pair(
    name_a: str, a: Tensor, name_b: str, b: Tensor, min_rows: int
) -> tuple[Tensor, Tensor]:
    """Both sets in float64. Raises ``ValueError`` unless they have the same width."""
    a, b = as_matrix(name_a, a, min_rows), as_matrix(name_b, b, min_rows)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{name_a} and {name_b} must have the same width, got {a.shape[1]} and {b.shape[1]}"
        )
    return a, b
