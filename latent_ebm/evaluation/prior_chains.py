"""Whether the draws of a prior are draws of its density, or of a short chain that has not
converged.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from latent_ebm.evaluation.batches import decode
from latent_ebm.metrics import frechet_distance
from latent_ebm.model import LatentModel
from latent_ebm.priors import EnergyPrior, Prior, RatioPrior
from samplers import Annealed, GradientFlow, Sampler, acceptance, ess, split_rhat

Features = Callable[[Tensor], Tensor]
MULTIPLES = (1, 10, 60)


@torch.no_grad()
def tilt_means(prior: Prior, z: dict[str, Tensor]) -> dict[str, float]:
    """Mean learned energy ``-prior.tilt`` in nats, ``energy_<name>``, at every named set of
    latents (n, dim).
    """
    return {f"energy_{name}": -prior.tilt(draws).mean().item() for name, draws in z.items()}


def lengthened(sampler: Sampler, multiple: int) -> Sampler:
    """``sampler``, or the one that it wraps, with ``multiple`` times its steps, as large as they
    were.
    """
    inner = getattr(sampler, "sampler", None)
    if isinstance(inner, Sampler):
        change: dict[str, object] = {"sampler": lengthened(inner, multiple)}
    else:
        change = {"num_steps": multiple * sampler.num_steps}
        if isinstance(sampler, GradientFlow):  # its steps are parts of the horizon
            change["horizon"] = multiple * sampler.horizon
    return dataclasses.replace(sampler, **change)  # pyright: ignore[reportArgumentType, reportCallIssue]


def chain_start(
    prior: EnergyPrior | RatioPrior, num: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Positions (num, dim) where ``prior.sample`` starts its last chain: draws of the base, or of
    the stages before the last.
    """
    if isinstance(prior, RatioPrior) and len(prior.stages) > 1:
        return prior.prefix(len(prior.stages) - 1).sample(num, generator=generator)
    return prior.base.sample(num, generator=generator)


def chain_diagnostics(
    prior: EnergyPrior | RatioPrior,
    *,
    num_chains: int = 200,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """Convergence of ``prior.sampler`` from the start that it has in use: the worst value over
    latent coordinates and the log-density.

    ``rhat`` is the split R-hat of the second half of the chain, near 1 if chains have forgotten
    their start; ``ess_per_draw`` is of the same half, pooled; ``acceptance`` is of all steps. A
    chain of fewer than 20 steps is run for at least 20. Of an annealed chain, only the last rung
    is looked at, which has the density of the prior.
    """
    rungs = len(prior.sampler.ladder) if isinstance(prior.sampler, Annealed) else 1
    sampler = lengthened(prior.sampler, math.ceil(20 * rungs / prior.sampler.num_steps))
    start, draws, infos = chain_start(prior, num_chains, generator=generator), [], []
    for state, info in sampler.run(prior, start, generator=generator):
        draws.append(torch.cat([state.position, state.log_density[:, None]], 1))
        infos.append(info)
    last = draws[-(len(draws) // rungs) :]
    late = torch.stack(last[len(last) // 2 :])
    return {
        "rhat": split_rhat(late).max().item(),
        "ess_per_draw": (ess(late).min() / (late.shape[0] * late.shape[1])).item(),
        "acceptance": acceptance(infos).mean().item(),
    }


def long_run_draws(
    prior: EnergyPrior | RatioPrior,
    num: int,
    *,
    multiples: Sequence[int] = MULTIPLES,
    generator: torch.Generator | None = None,
) -> dict[int, Tensor]:
    """Positions (num, dim) of the same chains after ``multiples`` of the number of steps that
    ``prior.sample`` gives its last chain.

    Raises ``ValueError`` unless ``multiples`` increase from at least 1.
    """
    if not multiples or multiples[0] < 1 or any(a >= b for a, b in pairwise(multiples)):
        raise ValueError(f"multiples must increase from at least 1, got {list(multiples)}")
    z, draws, done = chain_start(prior, num, generator=generator), {}, 0
    for multiple in multiples:
        z = lengthened(prior.sampler, multiple - done).sample(prior, z, generator=generator)
        draws[multiple], done = z, multiple
    return draws


def long_run(
    model: LatentModel,
    test: Tensor,
    features: Features | None,
    *,
    multiples: Sequence[int] = MULTIPLES,
    num: int = 500,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """How ``num`` prior draws change in longer chains: ``energy_10x``, ``norm_10x``,
    ``frechet_10x``, ...

    The norm is the mean ``|z|``. The Frechet distance compares decoded draws with ``test`` (n,
    \\*event) in ``features``, and is left out if they are None. A prior without a chain has no
    such metrics.
    """
    prior, figures = model.prior, {}
    if not isinstance(prior, (EnergyPrior, RatioPrior)):
        return figures
    real = None if features is None else features(test).detach()
    for multiple, z in long_run_draws(
        prior, num, multiples=multiples, generator=generator
    ).items():
        with torch.no_grad():
            figures |= tilt_means(prior, {f"{multiple}x": z})
            figures[f"norm_{multiple}x"] = z.norm(dim=1).mean().item()
            if features is not None and real is not None:
                figures[f"frechet_{multiple}x"] = frechet_distance(
                    real, features(decode(model, z))
                )
    return figures
