r"""How the views of a detector are learned: features, linear codes, kernels, ratio stages.

A table has one view, the rows themselves. Its kernels stand at the codes of training rows and have
one bandwidth, which maximises the leave-one-out likelihood: without stages, its score is that of a
kernel density estimate. If asked for, ratio stages refine them, as many as held-out codes say are
worth adding (arXiv:2209.08739). A table whose columns depend on each other exactly has a second
view, see ``dependence``.

An image has two views: the principal components of its pixels with the norm of the rest, and
features that a small encoder learns from the training images without labels, by making random
crops and turns of an image alike (arXiv:2105.04906, 2105.09270). Pixels alone are not enough: they
mostly say how much ink there is, and their density prefers plain images. The kernels are as wide
as the gaps between neighbours, because images of one kind lie closer together than those of
another. No setting was chosen by looking at anomalies that are reported: the number of neighbours
and ``TEMPERING`` come from other held-out digits.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from latent_ebm.detection.parts import (
    HIDDEN,
    NUM_NEIGHBOURS,
    Components,
    KernelsPrior,
    View,
    in_blocks,
    linear,
    neighbour_prior,
    ratio_prior,
    typical_width,
)
from latent_ebm.kernels import (
    KernelPrior,
    NeighbourPrior,
    leave_one_out_bandwidth,
    local_bandwidths,
)
from latent_ebm.networks import EnergyMLP
from latent_ebm.priors import RatioPrior

if TYPE_CHECKING:
    from latent_ebm.learning import RatioStages

MIN_ROWS = 60  # with fewer, no classifier is worth its held-out rows
# Kernels are 1 / h^(TEMPERING dim) high: 0 compares gaps alone, 1 is the height of the density.
TEMPERING = 0.15
NUM_CONCENTRATIONS, MAX_BROAD = 5, 2000  # turns of ``bulk``, and its kernels
STAGE_EXEMPLARS = 5000  # most kernels while stages are learned: their chains see all at each step


def make_scaler(X: NDArray[np.float64], *, images: bool) -> StandardScaler:
    """A scaler to mean 0 and standard deviation 1 for each column of a table (constant columns
    keep their unit), and to [-1, 1] for all pixels of images together.
    """
    scaler = StandardScaler().fit(X)
    if images:
        low, high = X.min(), X.max()
        scaler.mean_ = np.full(X.shape[1], (low + high) / 2)
        scaler.scale_ = np.full(X.shape[1], (high - low) / 2 or 1.0)
    return scaler


@torch.no_grad()
def bulk(views: Iterable[View], x: Tensor, trim: float) -> Tensor:
    """Which (n,) of rows x (n, \\*event) remain when a part ``trim`` is left out.

    The rest has a large likelihood under kernels at its own codes, as wide as all of them together
    (half their variance): only the bulk of rows counts, not copies or a dense clump of anomalies.
    Placing kernels and leaving rows out take turns, as in the concentration steps of Rousseeuw and
    Van Driessen (1999).
    """
    codes = [in_blocks(view.encode, x) for view in views]
    kept = torch.ones(len(x), dtype=torch.bool)
    for _ in range(NUM_CONCENTRATIONS):
        scores = torch.stack([in_blocks(broad_kernels(z[kept]), z) for z in codes]).sum(0)
        kept = scores >= np.quantile(scores.numpy(), trim)
    return kept


def broad_kernels(z: Tensor) -> KernelPrior:
    """Kernels at some codes z (n, dim), of half their variance."""
    variance = z.var(0, correction=0).sum().clamp(min=1e-200) / 2
    return KernelPrior(z[torch.randperm(len(z))[:MAX_BROAD]], float(variance.sqrt()))


def fit_features(
    features: nn.Sequential, x: Tensor, num: int, max_steps: int, progress: bool
) -> None:
    """Train the encoder, of ``num`` features, on images ``x`` (n, C, H, W) in [-1, 1] in random
    order; its loss on a tenth of them stops it early.
    """
    from latent_ebm.learning import Augment, VICReg, fit_rows  # loads Lightning: seconds

    frame, encoder = features
    head = nn.Sequential(
        nn.Linear(num, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256)
    )
    views = Augment(min_area=0.6, flip=0.0, jitter=0.2, grey=0.0, turn=0.25)
    rule = VICReg(
        encoder, head, views, lambda params: torch.optim.AdamW(params, lr=1e-3, weight_decay=1e-4)
    )
    fit_rows(rule.train(), in_blocks(frame, x), max_steps, "val/loss", progress=progress)


def fit_components(components: Components, x: Tensor) -> None:
    """Find the principal axes of rows x (n, d); missing ones are zeros."""
    mean, axes, _ = principal(x, len(components.axes))
    components.to(x).mean.copy_(mean)
    components.axes.zero_()[: len(axes)] = axes


@torch.no_grad()
def fit_linear(features: nn.Module, x: Tensor, max_dim: int) -> View:
    """A view whose codes are the principal components, at most ``max_dim``, of the ``features`` of
    rows x (n, \\*event). The noise is what they leave over; the prior is not fitted yet.
    """
    y = in_blocks(features, x)
    mean, axes, left = principal(y, max_dim)
    view = linear(
        features, y.shape[1], len(axes), ratio_prior(KernelPrior(y[:1, : len(axes)], 1.0))
    ).to(y)
    encode, decode = layer(view.posterior.encoder), layer(view.likelihood.decoder)
    encode.weight.copy_(torch.cat([axes, torch.zeros_like(axes)]))
    encode.bias.copy_(torch.cat([-axes @ mean, mean.new_zeros(len(axes))]))
    decode.weight.copy_(axes.mT)
    decode.bias.copy_(mean)
    view.likelihood.log_scale.fill_(0.5 * math.log(max(left, 1e-12)))
    return view.eval().requires_grad_(False)


def principal(x: Tensor, max_dim: int) -> tuple[Tensor, Tensor, float]:
    """Mean (d,) and principal axes (dim <= max_dim, d) of rows x (n, d), and the variance that
    each other axis leaves.
    """
    mean = x.mean(0)
    wide = x.shape[1] > len(x)  # as large images are: the smaller side decides the cost
    q, r = torch.linalg.qr((x - mean).mT) if wide else torch.linalg.qr(x - mean, mode="r")
    _, singular, axes = torch.linalg.svd(r.mT if wide else r, full_matrices=False)
    dim = max(1, min(int((singular > 1e-6 * singular[0]).sum()), max_dim))
    axes = axes[:dim] @ q.mT if wide else axes[:dim]
    return mean, axes, float(singular[dim:].square().sum()) / (len(x) * max(1, x.shape[1] - dim))


def layer(network: nn.Module) -> nn.Linear:
    """The only layer of a linear network."""
    (found,) = (part for part in network.modules() if isinstance(part, nn.Linear))
    return found


@torch.no_grad()
def widen(view: View) -> None:
    """Make the noise of a view at least as wide as its kernels, and its posterior as wide as its
    noise.
    """
    log_scale = max(float(view.likelihood.log_scale), math.log(typical_width(view.kernels.base)))
    view.likelihood.log_scale.fill_(log_scale)
    bias = layer(view.posterior.encoder).bias
    bias[len(bias) // 2 :] = log_scale


def place_kernels(view: View, rows: Tensor, kernels: Callable[[Tensor], KernelsPrior]) -> None:
    """Put ``kernels`` at the codes of ``rows`` (n, \\*event), under the stages that the view
    has.
    """
    prior = kernels(in_blocks(view.encode, rows))
    if isinstance(view.prior, RatioPrior) and isinstance(prior, RatioPrior):
        old = view.prior
        for stage, weight, step in zip(old.stages, old.weights, old.log_z_steps, strict=True):
            prior.append(stage, float(weight), float(step))
    view.prior = prior.requires_grad_(False)


def equal_kernels(exemplars: Tensor) -> RatioPrior:
    """Kernels of the likeliest width, no stages."""
    return ratio_prior(KernelPrior(exemplars, leave_one_out_bandwidth(exemplars)))


def unit_kernels(exemplars: Tensor) -> RatioPrior:
    """Kernels of width 1, no stages."""
    return ratio_prior(KernelPrior(exemplars, 1.0))


def local_kernels(exemplars: Tensor) -> NeighbourPrior:
    """Kernels as wide as the gaps around them, and of such heights that the energy is nearly a
    distance in units of these gaps.
    """
    h, dim = local_bandwidths(exemplars, NUM_NEIGHBOURS)
    return neighbour_prior(KernelPrior(exemplars, h), -TEMPERING * dim * h.log())


def fit_stages(view: View, rows: Tensor, max_exemplars: int, max_stages: int) -> None:
    """Learn ratio stages from ``rows`` (n, d) in random order, as many as held-out rows profit
    from. Draws from the global random state.
    """
    z = in_blocks(view.encode, rows)
    enough = len(z) >= MIN_ROWS and max_stages > 0
    view.prior = (
        learn_stages(z, max_exemplars, max_stages)
        if enough
        else ratio_prior(KernelPrior(z[:1], 1.0))
    )


def learn_stages(z: Tensor, max_exemplars: int, max_stages: int) -> RatioPrior:
    """Stages learned on kernels at some rows against other rows; a fifth of all is held out.

    A classifier between rows and kernels *at the same rows* would only learn that rows are where
    kernels are.
    """
    from latent_ebm.learning import RatioStages  # loads Lightning: seconds

    held, half = len(z) // 5, len(z) // 2
    num = min(max_exemplars, STAGE_EXEMPLARS)
    z_held, z_data, exemplars = z[:held], z[held:half], z[half:][:num]
    prior = equal_kernels(exemplars)
    # About two standard errors of the held-out gain, for a logit of unit spread.
    noise = 2 / math.sqrt(held)
    ratio = EnergyMLP(z.shape[1], HIDDEN, "silu")
    stages = RatioStages(ratio, z.shape[1], 2000, max_stages=max_stages, tolerance=noise).to(z)
    stages.start(prior)
    while train_stage(stages, prior, z_data, z_held):
        stages.close(prior, **stages.measure())
    return prior


def train_stage(
    stages: "RatioStages", prior: RatioPrior, z_data: Tensor, z_held: Tensor, max_checks: int = 30
) -> bool:
    """Train the open stage until its held-out loss stops falling. Returns whether to add it."""
    optimizer = torch.optim.AdamW(stages.ratio.parameters(), lr=1e-3, weight_decay=0.01)
    for _ in range(max_checks):
        for _ in range(25):
            loss = stages.loss(prior, z_data[torch.randint(len(z_data), (128,))])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        stages.record(stages.check(z_held))
        if stages.is_done(prior):
            return True
    return stages.is_worth_adding(prior)
