r"""Losses as pure functions of tensors. Samples that enter them are constants: only parameters get
gradients.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import softplus

from samplers.checks import check_numbers
from samplers.derivatives import differentiate
from samplers.run_checks import is_readable


def check_shape(name: str, value: Tensor, shape: torch.Size | tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless ``value``, called ``name``, has ``shape``; others might
    broadcast.
    """
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(value.shape)}")


def contrastive(
    log_density: Callable[[Tensor], Tensor], z_data: Tensor, z_model: Tensor
) -> Tensor:
    """``-(E_data[log p] - E_model[log p])``, whose gradient is that of ``-E_data[log p / Z]`` when
    z_model ~ p.

    ``log_density`` maps (batch, \\*event) to (batch,), unnormalised. Source: Hinton 2002; Pang et
    al., arXiv:2006.08205.
    """
    model, data = log_density(z_model), log_density(z_data)
    check_shape("log_density(z_model)", model, z_model.shape[:1])
    check_shape("log_density(z_data)", data, z_data.shape[:1])
    return model.mean() - data.mean()


def noise_contrastive(logit_data: Tensor, logit_model: Tensor) -> Tensor:
    """``-E_data[log sig(f)] - E_model[log(1 - sig(f))]`` for logits (batch,) at samples of
    either distribution.

    Its minimum over f is ``2 log 2 - 2 JSD(data, model)``, reached at the log-ratio ``f = log
    q_data / p_model``. Source: Gutmann & Hyvarinen 2012; Xiao & Han 2022, arXiv:2209.08739.
    """
    return softplus(-logit_data).mean() + softplus(logit_model).mean()


def non_saturating(logit: Tensor) -> Tensor:
    """``-E[log sig(f)]`` for a critic's logits (batch,) at generated samples: the generator's
    loss.

    For an optimal critic its gradient with respect to a sample is that of ``log(1 + p_model /
    q_data)``, which does not vanish where the critic is certain. Source: Goodfellow et al. 2014,
    arXiv:1406.2661.
    """
    return softplus(-logit).mean()


def gradient_penalty(logit: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``E|grad f(x)|^2`` at x (batch, \\*event), for ``logit`` f (batch, \\*event) -> (batch,),
    twice differentiable.

    At data it is R1, with which adversarial training converges locally: Mescheder et al. 2018,
    arXiv:1801.04406.
    """
    # fused attention has no second derivative
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        x = x.detach().requires_grad_()
        grad = differentiate(logit(x), x, "logit", create_graph=True)
    return grad.flatten(1).square().sum(1).mean()


def negative_log_likelihood(conditional: Distribution, x: Tensor) -> Tensor:
    """``-E[log p(x|z)]`` in nats per datum, for ``conditional = likelihood(z)`` with one z per row
    of x.
    """
    check_shape("x", x, conditional.batch_shape + conditional.event_shape)
    return -conditional.log_prob(x).mean()


def divergence(q: Distribution, log_density: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """One-sample estimate ``E[log q(z) - log p(z)]`` of KL(q || p) at reparametrised z ~ q, up to
    log Z of p.

    Its gradient with respect to p's parameters is the data half of p's maximum-likelihood
    gradient.
    """
    value = log_density(z)
    check_shape("log_density(z)", value, z.shape[:1])
    return (q.log_prob(z) - value).mean()


def denoising_score_matching(
    log_density: Callable[[Tensor], Tensor], x: Tensor, noise: float
) -> Tensor:
    """``E|s grad log p(x + s eps) + eps|^2 / 2`` with s = ``noise``. It is least if p is the
    distribution of data blurred by N(0, s^2).

    ``log_density`` maps (batch, \\*event) to (batch,), unnormalised, twice differentiable. Source:
    Vincent 2011.
    """
    check_numbers("denoising_score_matching", "positive", noise=noise)
    eps = torch.randn_like(x)
    with torch.enable_grad():
        blurred = (x + noise * eps).requires_grad_()
        score = differentiate(log_density(blurred), blurred, create_graph=True)
    return 0.5 * (noise * score + eps).flatten(1).square().sum(1).mean()


def denoising(
    denoise: Callable[[Tensor], Tensor],
    x: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """``E[w |D(alpha x + sigma eps) - x|^2] / dim``. It is least for D = E[x | alpha x + sigma
    eps], for any weights w > 0.

    ``denoise`` maps noised rows (batch, \\*event) to estimates of x; ``alpha``, ``sigma`` and
    ``weight`` (batch,) have one entry per row. The squared error of every entry is multiplied by
    ``mask``, of a shape that broadcasts to that of x; None: by 1. Source: Vincent 2011; Karras et
    al. 2022, arXiv:2206.00364.
    """
    for name, value in {"alpha": alpha, "sigma": sigma, "weight": weight}.items():
        check_shape(name, value, x.shape[:1])
    shape = (-1, *[1] * (x.ndim - 1))
    alpha, sigma, weight = (a.to(x.dtype).view(shape) for a in (alpha, sigma, weight))
    estimate = denoise(alpha * x + sigma * torch.randn_like(x))
    check_shape("denoise(x_t)", estimate, x.shape)
    error = (estimate - x).square()
    return (weight * (error if mask is None else mask * error)).mean()


def regression(x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """``E[w |x - target|^2] / 2`` for x and a constant ``target`` (batch, \\*event) and weights w
    (batch,).

    The loss of the M-step of EM Distillation, Xie et al. 2024, arXiv:2405.16852.
    """
    check_shape("target", target, x.shape)
    check_shape("weight", weight, x.shape[:1])
    return 0.5 * (weight.to(x.dtype) * (x - target.detach()).flatten(1).square().sum(1)).mean()


def score_difference(x: Tensor, gap: Tensor, weight: Tensor) -> Tensor:
    """``-E[w <x, gap>]`` with weights w (batch,). Its gradient with respect to the parameters of x
    (batch, \\*event) is ``-E[w J^T gap]``.

    With the gap of two denoisers at noised x this is the gradient of a KL divergence: Luo et al.
    2023, arXiv:2305.18455.
    """
    check_shape("gap", gap, x.shape)
    check_shape("weight", weight, x.shape[:1])
    return -(weight.to(x.dtype) * (x * gap.detach()).flatten(1).sum(1)).mean()


def nearest_neighbour_entropy(x: Tensor) -> Tensor:
    """``dim E[log min_j |x_i - x_j|]``: the entropy of the distribution of x (batch, dim) in
    nats, up to a constant.

    Differentiable; rows that coincide count as 1e-6 apart. Source: Kozachenko & Leonenko 1987; as
    a loss Du et al. 2021, arXiv:2012.01316.

    Raises:
        ValueError: For fewer than two rows.
    """
    if len(x) < 2:
        raise ValueError(f"x must have at least two rows, got {len(x)}")
    with torch.no_grad():
        distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distance.fill_diagonal_(torch.inf).argmin(1)
    return 0.5 * x.shape[1] * ((x - x[nearest]).square().sum(1) + 1e-12).log().mean()


def vicreg(z: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three terms of VICReg for embeddings (n >= 2, dim) of two views: invariance, variance
    and covariance.

    Invariance is ``E(z - z')^2`` over rows and columns. Variance is ``mean_j max(0, 1 - sqrt(Var
    z_j + 1e-4))``, averaged over the views; it is near 1 when all rows collapse into one.
    Covariance is ``sum_{i != j} Cov(z_i, z_j)^2 / dim``, summed over the views. Source: Bardes,
    Ponce, LeCun 2021, arXiv:2105.04906.

    Raises:
        ValueError: For fewer than two rows.
    """
    if len(z) < 2:
        raise ValueError(f"z must have at least two rows, got {len(z)}")
    check_shape("other", other, z.shape)
    views = torch.stack([z, other])
    hinge = (1 - (views.var(1) + 1e-4).sqrt()).relu()
    centred = views - views.mean(1, keepdim=True)
    covariance = centred.mT @ centred / (len(z) - 1)
    total, diagonal = covariance.square().sum(), covariance.diagonal(dim1=1, dim2=2).square().sum()
    return (z - other).square().mean(), hinge.mean(), (total - diagonal) / z.shape[1]


def supervised_contrast(z: Tensor, label: Tensor, temperature: float) -> Tensor:
    """``-E_i mean_{p in P(i)} log softmax_{a != i}(z_i . z_a / temperature)_p`` for unit vectors z
    (n, dim), where P(i) holds the other rows with the ``label`` (n,) of row i.

    Rows without such another one do not count. Source: Khosla et al. 2020, arXiv:2004.11362,
    eq. 2.

    Raises:
        ValueError: If no two rows have one label.
    """
    check_shape("label", label, z.shape[:1])
    alone = torch.eye(len(z), dtype=torch.bool, device=z.device)
    same = (label[:, None] == label) & ~alone
    if is_readable(same) and not bool(same.any()):
        raise ValueError("label must be the same for two rows at least, got none twice")
    return contrast((z @ z.mT / temperature).masked_fill(alone, -torch.inf), same)


def symmetric_contrast(logits: Tensor, right: Tensor) -> Tensor:
    """The mean of ``contrast`` over rows and over columns, for logits (n, m) of texts and pictures
    and the pairs (n, m) that are ``right``.

    With one right picture per text, this is the loss of CLIP (Radford et al. 2021,
    arXiv:2103.00020); with several, that of UniCL (Yang et al. 2022, arXiv:2204.03610).
    """
    check_shape("right", right, logits.shape)
    return (contrast(logits, right) + contrast(logits.mT, right.mT)) / 2


def contrast(logits: Tensor, right: Tensor) -> Tensor:
    """``-E_i mean_{p in P(i)} log softmax(logits_i)_p`` for logits (n, m), where P(i) holds the
    columns that are ``right`` (n, m) in row i. Rows without one do not count.
    """
    counts, log_p = right.sum(1), logits.log_softmax(1)
    return -(log_p.where(right, 0).sum(1) / counts.clamp_min(1)).sum() / counts.gt(0).sum()
