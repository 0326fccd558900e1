r"""The latent model inside ``LatentEBMDetector``: how it is made, fitted and stored.

For tables x is the row itself; for images it is features that a small encoder has learnt from the images at hand, without
labels, to be alike in random views of one image (arXiv:2105.04906, 2105.09270): pixels say how much ink there is, and density
in them prefers what is plain. The *code* z of x are its principal components, which a linear decoder inverts. On the codes of
the training rows stands a kernel prior whose bandwidth maximises the leave-one-out likelihood, tilted by as many ratio
stages as held-out codes say are worth adding (arXiv:2209.08739). So the number that ranks rows, the joint energy
``-log p(x|z) - log p(z)``, was selected without an anomaly.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from latent_ebm.learning import Augment, RatioStages, VICReg, fit_rows
from latent_ebm.likelihoods import GaussianLikelihood
from latent_ebm.model import LatentModel
from latent_ebm.networks import MLP, EnergyMLP, PlacedEncoder
from latent_ebm.posteriors import AmortizedPosterior
from latent_ebm.priors import KernelPrior, RatioPrior, leave_one_out_bandwidth
from samplers import MALA

HIDDEN = (64, 64)
MIN_ROWS = 60  # with fewer, no classifier is worth its held-out rows
STAGE_EXEMPLARS = 5000  # kernels at most while stages are learnt, whose chains see them all at every step
BLOCK = 128  # rows that are scored at once: their distances to 5,000 exemplars stay in cache


class Coder(NamedTuple):
    """``features`` of rows; the mean of their ``posterior`` is the code, and ``likelihood`` that of features given codes."""

    features: nn.Module
    posterior: AmortizedPosterior
    likelihood: GaussianLikelihood


def blank_features(image_shape: Sequence[int] | None, num: int, channels: int) -> nn.Module:
    """What maps rows to features: nothing for tables, an encoder to ``num`` numbers for images."""
    return nn.Identity() if image_shape is None else PlacedEncoder(image_shape[0], num, channels)


def blank_coder(features: nn.Module, num: int, dim: int) -> Coder:
    """Linear encoder and decoder between ``num`` features and codes of ``dim`` numbers."""
    posterior = AmortizedPosterior(MLP(num, 2 * dim, ()))
    return Coder(features, posterior, GaussianLikelihood(MLP(dim, num, ()), 1.0))


def fit_features(features: nn.Module, x: Tensor, max_steps: int, progress: bool) -> None:
    """Train the encoder of images ``x`` (n, C, H, W) in [-1, 1], in random order; its loss on a tenth stops it early."""
    num = features.head[-1].out_features  # pyright: ignore
    head = nn.Sequential(nn.Linear(num, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256))
    views = Augment(min_area=0.6, flip=0.0, jitter=0.2, grey=0.0, turn=0.25)
    rule = VICReg(features, head, views, lambda params: torch.optim.AdamW(params, lr=1e-3, weight_decay=1e-4))
    fit_rows(rule.train(), x, max_steps, "val/loss", progress=progress)


@torch.no_grad()
def featured(features: nn.Module, x: Tensor) -> Tensor:
    """Features (n, num) of rows ``x``, in blocks."""
    return in_blocks(features, x)


def fit_linear(features: nn.Module, x: Tensor, max_dim: int) -> Coder:
    """Principal axes of the ``features`` x (n, d), as many as they have up to ``max_dim``; noise is what these leave over."""
    mean = x.mean(0)
    _, singular, axes = torch.linalg.svd(x - mean, full_matrices=False)
    rank = int((singular > 1e-6 * singular[0]).sum())
    dim = max(1, min(rank, max_dim))
    coder = blank_coder(features, x.shape[1], dim)
    for part in (coder.posterior, coder.likelihood):
        part.to(x)
    axes, left = axes[:dim], singular[dim:].square().sum() / (len(x) * max(1, x.shape[1] - dim))
    with torch.no_grad():
        encode, decode = linear(coder.posterior.encoder), linear(coder.likelihood.decoder)
        encode.weight.copy_(torch.cat([axes, torch.zeros_like(axes)]))
        encode.bias.copy_(torch.cat([-axes @ mean, torch.zeros(dim)]))
        decode.weight.copy_(axes.mT)
        decode.bias.copy_(mean)
        coder.likelihood.log_scale.fill_(0.5 * math.log(max(float(left), 1e-12)))
    return coder


def widen(coder: Coder, scale: float) -> None:
    """Let the noise of a linear coder be at least ``scale``, and its posterior as wide as its noise."""
    log_scale = max(float(coder.likelihood.log_scale), math.log(scale))
    coder.likelihood.log_scale.fill_(log_scale)
    bias = linear(coder.posterior.encoder).bias
    with torch.no_grad():
        bias[len(bias) // 2 :] = log_scale


def linear(network: nn.Module) -> nn.Linear:
    """The one layer of a linear network."""
    return cast(nn.Linear, cast(MLP, network).layers[0])


def fit_prior(z: Tensor, max_exemplars: int, max_stages: int) -> RatioPrior:
    """Kernels at the first ``max_exemplars`` codes ``z`` (n, dim), which are in random order, and the stages that held-out
    codes ask for; uses the global random state.
    """
    prior = kernel_ratio_prior(z[:max_exemplars])
    if len(z) >= MIN_ROWS and max_stages > 0:
        for stage, weight, step in zip(*learn_stages(z, max_exemplars, max_stages), strict=True):
            prior.append(stage, float(weight), float(step))
    return prior


def kernel_ratio_prior(exemplars: Tensor) -> RatioPrior:
    """No stages yet; chains that move within a kernel's width."""
    bandwidth = leave_one_out_bandwidth(exemplars)
    return RatioPrior(KernelPrior(exemplars, bandwidth), [], MALA(0.02 * bandwidth**2, 20))


def learn_stages(z: Tensor, max_exemplars: int, max_stages: int) -> tuple[nn.ModuleList, Tensor, Tensor]:
    """Stages, weights and steps of log Z, learnt where they can be: kernels at some rows against others, a fifth held out.

    A classifier between rows and kernels *at the same rows* would learn that rows are where kernels are.
    """
    held, half = len(z) // 5, len(z) // 2
    num = min(max_exemplars, STAGE_EXEMPLARS)
    z_held, z_data, exemplars = z[:held], z[held:half], z[half:][:num]
    prior = kernel_ratio_prior(exemplars)
    noise = 2 / math.sqrt(held)  # about two standard errors of the held-out gain of a logit of unit spread
    ratio = EnergyMLP(z.shape[1], HIDDEN, "silu")
    stages = RatioStages(ratio, z.shape[1], 2000, max_stages=max_stages, tolerance=noise).to(z)
    stages.start(prior)
    while train_stage(stages, prior, z_data, z_held):
        stages.close(prior, **stages.measure())
    return prior.stages, prior.weights, prior.log_z_steps


def train_stage(stages: RatioStages, prior: RatioPrior, z_data: Tensor, z_held: Tensor, max_checks: int = 30) -> bool:
    """Train the open stage until its held-out loss stops falling; whether it is worth adding."""
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


@torch.no_grad()
def codes(coder: Coder, x: Tensor) -> Tensor:
    """Codes (n, latent_dim) of x (n, \\*event)."""
    return in_blocks(lambda part: coder.posterior(coder.features(part)).mean, x)


def in_blocks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function`` of rows x (n, \\*event), evaluated on blocks of one size, the last one filled up with its last row.

    So the result of a row does not depend, not even in its last bit, on how many rows come with it.
    """
    out = []
    for part in x.split(BLOCK):
        missing = BLOCK - len(part)
        full = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part
        out.append(function(full)[: len(part)])
    return torch.cat(out)


def energy(coder: Coder, prior: RatioPrior, x: Tensor, terms: Sequence[str]) -> Tensor:
    """Sum (n,) of the named ``terms`` of the energy of x (n, \\*event) at its codes."""
    model = LatentModel(prior, coder.likelihood)

    def block(x: Tensor) -> Tensor:
        x = coder.features(x)
        energies = model.energy_terms(x, coder.posterior(x).mean)
        return torch.stack([getattr(energies, term) for term in terms]).sum(0)

    return in_blocks(block, x)


def negative_elbo(coder: Coder, prior: RatioPrior, x: Tensor, noise: Tensor) -> Tensor:
    """``E_q[log q(z|x) - log p(x, z)]`` (n,) with the same ``noise`` (k, dim) for every row."""
    model = LatentModel(prior, coder.likelihood)

    def block(x: Tensor) -> Tensor:
        x = coder.features(x)
        q = coder.posterior(x)
        draws = (q.mean + q.stddev * eps for eps in noise)
        return torch.stack([q.log_prob(z) - model.log_joint(x, z) for z in draws]).mean(0)

    return in_blocks(block, x)


def kernel(prior: RatioPrior) -> KernelPrior:
    """The base of a detector's prior."""
    return cast(KernelPrior, prior.base)


def optimism(prior: RatioPrior) -> Tensor:
    """By how much (n,) the kernel at an exemplar itself raises its log-density over that of the kernels at the others."""
    base = kernel(prior)
    z, others = base.exemplars, []
    for start in range(0, len(z), BLOCK):
        exponent = base.log_kernels(z[start : start + BLOCK])
        exponent[:, start : start + BLOCK].fill_diagonal_(-math.inf)
        others.append(exponent.logsumexp(1))
    return in_blocks(base, z) + base.log_norm() - torch.cat(others) + math.log1p(-1 / len(z))
