r"""Priors made of kernels at known latents, and how wide these should be.

Kernels of one width tell how densely latents lie. Kernels as wide as the gaps around each of them
tell whether latents lie at a point at all.
"""

import math

import torch
from torch import Tensor

from latent_ebm.priors import Prior, check_latent
from samplers import Sampler
from samplers.checks import check_counts, check_numbers
from samplers.run_checks import is_readable
from samplers.targets import log_sum_exp


class KernelPrior(Prior):
    """``p(z) = mean_i N(z; z_i, h_i^2 I)``, normalised: a kernel at each of ``exemplars`` z_i
    (n, dim).

    A base that already lies where latents of data lie, as in the exemplar VAE (Norouzi et al.
    2020, arXiv:2004.04795). ``bandwidth`` is one h > 0 for all kernels
    (``leave_one_out_bandwidth`` finds the most likely one) or has shape (n,). Raises
    ``ValueError`` for other shapes, or a bandwidth that is not positive.
    """

    exemplars: Tensor
    bandwidth: Tensor
    centre: Tensor
    table: Tensor

    def __init__(self, exemplars: Tensor, bandwidth: float | Tensor) -> None:
        super().__init__()
        check_exemplars(exemplars)
        if not isinstance(bandwidth, Tensor):
            check_numbers(self, "positive", bandwidth=bandwidth)
        h = torch.as_tensor(bandwidth, dtype=exemplars.dtype, device=exemplars.device)
        if h.shape not in ((), (len(exemplars),)):
            raise ValueError(
                f"bandwidth must be a number or have shape ({len(exemplars)},), got "
                f"{tuple(h.shape)}"
            )
        if is_readable(h) and not bool((h.isfinite() & (h > 0)).all()):
            raise ValueError(
                f"bandwidth must be finite and positive, got {h.unique().tolist()[:5]}"
            )
        self.register_buffer("exemplars", exemplars.detach().clone())
        self.register_buffer("bandwidth", h.expand(len(exemplars)).clone())
        self.register_load_state_dict_post_hook(tabulate)
        tabulate(self)

    @property
    def base(self) -> "KernelPrior":  # pyright: ignore[reportIncompatibleVariableOverride]
        return self

    def log_density(self, z: Tensor) -> Tensor:
        return log_sum_exp(self.log_kernels(z), 1)

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Closed form for samplers: the gradient is ``sum_i p(i|z) (z_i - z) / h_i^2``."""
        with torch.no_grad():
            terms = self.log_kernels(z)
            means = (
                terms.softmax(1) @ self.table[:-1].mT
            )  # under p(i|z), of centred z_i / h_i^2 and of -1 / (2 h_i^2)
            return log_sum_exp(terms, 1), means[:, :-1] + 2 * means[:, -1:] * (z - self.centre)

    def mean_shift(self, z: Tensor) -> Tensor:
        """One step (batch, dim) up the density: the mean of the exemplars, weighed by ``p(i|z) /
        h_i^2``.
        """
        return (self.log_kernels(z) - 2 * self.bandwidth.log()).softmax(1) @ self.exemplars

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        check_counts(self, least=0, num=num)
        like = self.exemplars
        i = torch.randint(len(like), (num,), generator=generator, device=like.device)
        return like[i] + self.bandwidth[i, None] * like.new_empty(num, like.shape[1]).normal_(
            generator=generator
        )

    def log_kernels(self, z: Tensor) -> Tensor:
        """``log N(z; z_i, h_i^2 I) / n`` (batch, n), from one product of ``(u, |u|^2, 1)``, u the
        centred z, and a table.
        """
        check_latent(z, self.exemplars.shape[1])
        u = z - self.centre
        return (
            torch.cat([u, u.square().sum(1, keepdim=True), torch.ones_like(u[:, :1])], 1)
            @ self.table
        )

    def own_part(self, start: int, end: int, z: Tensor | None = None) -> Tensor:
        """How much each of the exemplars ``start`` to ``end`` raises the log-density by its own
        kernel: at itself, or at its row of z (end - start, dim).
        """
        terms = self.log_kernels(self.exemplars[start:end] if z is None else z)
        whole = terms.logsumexp(1)
        terms[:, start:end].fill_diagonal_(-math.inf)
        return whole - terms.logsumexp(1)


def check_exemplars(exemplars: Tensor) -> None:
    """Raise ``ValueError`` unless ``exemplars`` (n >= 1, dim >= 1) are floating and finite."""
    if exemplars.ndim != 2 or exemplars.numel() == 0:
        raise ValueError(
            f"exemplars must have shape (n >= 1, dim >= 1), got {tuple(exemplars.shape)}"
        )
    if not exemplars.is_floating_point():
        raise ValueError(f"exemplars must be floating, got {exemplars.dtype}")
    if is_readable(exemplars) and not bool(exemplars.isfinite().all()):
        bad = int((~exemplars.isfinite()).any(1).sum())
        raise ValueError(f"exemplars must be finite: {bad} of {len(exemplars)} rows are not")


def tabulate(prior: KernelPrior, *_: object) -> None:
    """Derive the ``centre`` and the ``table`` (dim + 2, n) of log-kernels, which are linear in
    ``(u, |u|^2, 1)``.
    """
    prior.register_buffer("centre", prior.exemplars.mean(0), persistent=False)
    v, precision = prior.exemplars - prior.centre, prior.bandwidth**-2
    heights = -v.shape[1] * (prior.bandwidth.log() + 0.5 * math.log(2 * math.pi)) - math.log(
        len(v)
    )
    constant = heights - 0.5 * precision * v.square().sum(1)
    table = torch.cat([v.mT * precision, -0.5 * precision[None], constant[None]])
    prior.register_buffer("table", table, persistent=False)


class NeighbourPrior(Prior):
    """``p(z) ~ sum_(i in N(z)) exp(a_i - |z - z_i|^2 / (2 h_i^2))``, N(z) the ``num_neighbours``
    exemplars nearest to z.

    ``base`` holds the exemplars z_i and their widths h_i, ``log_heights`` are a_i (n,), and
    ``sampler`` draws, starting from the base. Far kernels do not count, however wide they are.
    If all kernels are equally high, the energy is a distance in units of the gaps nearby, which
    is the idea of LOF (Breunig et al. 2000). See ``local_bandwidths``.
    """

    base: KernelPrior  # pyright: ignore[reportIncompatibleVariableOverride]
    log_heights: Tensor
    table: Tensor

    def __init__(
        self, base: KernelPrior, log_heights: Tensor, num_neighbours: int, sampler: Sampler
    ) -> None:
        super().__init__()
        if log_heights.shape != base.bandwidth.shape:
            raise ValueError(
                f"log_heights must have shape ({len(base.bandwidth)},), got "
                f"{tuple(log_heights.shape)}"
            )
        if is_readable(log_heights) and not bool(log_heights.isfinite().all()):
            raise ValueError("log_heights must be finite, got NaN or infinite ones")
        check_counts(self, num_neighbours=num_neighbours)
        if num_neighbours >= len(log_heights):
            raise ValueError(
                f"num_neighbours must be in [1, {len(log_heights) - 1}], got {num_neighbours}"
            )
        self.base, self.num_neighbours, self.sampler = base, num_neighbours, sampler
        self.register_buffer("log_heights", log_heights.detach().clone())
        self.register_load_state_dict_post_hook(tabulate_gaps)
        tabulate_gaps(self)

    def log_density(self, z: Tensor) -> Tensor:
        return log_sum_exp(self.log_kernels(z, self.closeness(z)), 1)

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        return self.sampler.sample(
            self, self.base.sample(num, generator=generator), generator=generator
        )

    def own_part(self, start: int, end: int, z: Tensor | None = None) -> Tensor:
        """How much each of the exemplars ``start`` to ``end`` raises the log-density by its own
        kernel: at itself, or at its row of z (end - start, dim).
        """
        z = self.base.exemplars[start:end] if z is None else z
        closeness = self.closeness(z)
        whole = self.log_kernels(z, closeness).logsumexp(1)
        closeness[:, start:end].fill_diagonal_(-math.inf)
        return whole - self.log_kernels(z, closeness).logsumexp(1)

    def log_kernels(self, z: Tensor, closeness: Tensor) -> Tensor:
        """``a_i - |z - z_i|^2 / (2 h_i^2)`` (batch, num_neighbours) of the nearest."""
        i = closeness.topk(self.num_neighbours, sorted=False).indices
        square = (z[:, None] - self.base.exemplars[i]).square().sum(2)
        return self.log_heights[i] - 0.5 * square / self.base.bandwidth[i] ** 2

    @torch.no_grad()
    def closeness(self, z: Tensor) -> Tensor:
        """``-|z - z_i|^2 / 2`` (batch, n) up to a constant of each row."""
        check_latent(z, self.base.exemplars.shape[1])
        u = z - self.base.centre
        return torch.cat([u, torch.ones_like(u[:, :1])], 1) @ self.table


def tabulate_gaps(prior: NeighbourPrior, *_: object) -> None:
    """Derive the ``table`` (dim + 1, n) of closeness, which is linear in ``(u, 1)``."""
    v = prior.base.exemplars - prior.base.centre
    prior.register_buffer(
        "table", torch.cat([v.mT, -0.5 * v.square().sum(1)[None]]), persistent=False
    )


def square_distances(a: Tensor, b: Tensor) -> Tensor:
    """``|a_i - b_j|^2`` (n, m) of rows a (n, dim) and b (m, dim), from products of centred
    rows.
    """
    centre = b.mean(0)
    a, b = a - centre, b - centre
    return (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.mT).clamp(min=0)


def distinct(rows: Tensor) -> Tensor:
    """``rows`` (n, dim) without copies, centred. Rows count as copies if they differ by less than
    the rounding error of distances.

    Raises ``ValueError`` unless all are finite and two differ.
    """
    check_exemplars(rows)
    centred = rows - rows.mean(0)
    limits = torch.finfo(rows.dtype)
    resolution = (4 * math.sqrt(limits.eps * rows.shape[1]) * centred.abs().max()).clamp(
        min=limits.tiny
    )
    found = (centred / resolution).round().unique(dim=0) * resolution
    if len(found) < 2:
        raise ValueError("exemplars must hold two different rows, got one")
    return found


def leave_one_out_bandwidth(exemplars: Tensor, max_rows: int = 2000) -> float:
    """The ``h`` that maximises the likelihood of each of ``exemplars`` (n, dim) under the kernels
    at the others.

    Copies of a row count once, because otherwise its copy would explain a row at any h. The
    likelihood is taken over ``max_rows`` random rows, or over fewer if the table of distances
    would have more than 16 million entries. Raises ``ValueError`` unless two rows differ.
    """
    from scipy.optimize import minimize_scalar

    check_counts("leave_one_out_bandwidth", max_rows=max_rows)
    rows = distinct(exemplars)
    max_rows = min(max_rows, max(1, 16_000_000 // len(rows)))
    generator = torch.Generator("cpu").manual_seed(0)
    rows = rows[torch.randperm(len(rows), generator=generator, device="cpu")]
    square = square_distances(rows[:max_rows], rows).fill_diagonal_(math.inf)
    nearest = square.min(1).values.median().clamp(min=torch.finfo(rows.dtype).tiny)

    def loss(log_scale: float) -> float:
        variance = nearest * math.exp(2 * log_scale)
        return float(
            rows.shape[1] / 2 * variance.log() - (-square / (2 * variance)).logsumexp(1).mean()
        )

    widest = 1 + 0.5 * math.log(
        float(rows.var(0).sum() / nearest)
    )  # in few dimensions, many neighbours share a kernel
    return float(nearest.sqrt()) * math.exp(
        minimize_scalar(loss, bounds=(-5, max(widest, 1)), method="bounded").x
    )


def local_bandwidths(exemplars: Tensor, num_neighbours: int) -> tuple[Tensor, float]:
    r"""Bandwidths (n,) as wide as the gaps around each of ``exemplars`` (n, dim), and the
    dimension in which these spread.

    ``h_i = r_i / sqrt(m)``, r_i the distance to the neighbour of rank ``num_neighbours``, and m in
    [1, dim] of ``1 / m = mean_ij log(r_i / r_ij)`` (Levina and Bickel 2004; MacKay and Ghahramani
    2005). Copies of a row count once. Raises ``ValueError`` for ``num_neighbours < 2``, or unless
    two rows differ.
    """
    from sklearn.neighbors import NearestNeighbors

    check_counts("local_bandwidths", least=2, num_neighbours=num_neighbours)
    check_exemplars(exemplars)
    dim, others, centred = exemplars.shape[1], distinct(exemplars), exemplars - exemplars.mean(0)
    search = NearestNeighbors(n_neighbors=min(num_neighbours + 1, len(others))).fit(
        others.numpy(force=True)
    )
    gaps = torch.from_numpy(search.kneighbors(centred.numpy(force=True))[0])
    gaps = gaps[:, 1:].to(exemplars)  # without the row itself
    spread = float((gaps[:, -1:] / gaps[:, :-1]).log().mean()) if gaps.shape[1] > 1 else 0.0
    m = max(1.0, min(dim, 1 / spread)) if spread > 0 else dim
    return gaps[:, -1] / math.sqrt(m), m
