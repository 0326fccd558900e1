"""Ways to draw from a posterior, all at about the same number of calls of the decoder."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from experiments.posteriors.truth import GridPosterior
from latent_ebm.model import LatentModel
from latent_ebm.posteriors import AmortizedPosterior, MCMCPosterior, Posterior, Restarts
from samplers import HMC, MALA, Annealed, Langevin, ParallelTempering, PersistentChains

VISITS = 10  # of persistent chains; only the last one counts
LADDER = (0.1, 0.3, 0.6, 1.0)
NAMES = {
    "published": "cold Langevin, 20 steps of .005 as published",
    "langevin": "cold Langevin, steps of .005",
    "mala": "cold MALA",
    "hmc": "cold HMC",
    "persistent": f"persistent HMC, visit {VISITS}",
    "annealed": "annealed MALA",
    "tempered": "parallel tempering of MALA",
    "encoder": "encoder",
    "refined": "encoder, then MALA",
    "restarts": "restarts by weight, then MALA",
    "annealed_restarts": "annealed restarts by weight",
    "encoder_restarts": "restarts of the encoder by weight, then MALA",
    "exact": "exact",
}


def method(
    name: str, calls: int, encoder: nn.Module | None, num_chains: int, dim: int, step: float
) -> Posterior:
    """The posterior ``name``. ``calls`` is how often it may call the decoder for a draw, and
    ``step`` the step size of MALA.
    """
    mala, hmc = MALA(step, calls), HMC(0.6 * (2 * step) ** 0.5, 4, calls // 4)
    half, quarter = MALA(step, calls // 2), MALA(step, calls // 4)
    starts = round((calls / 2.5) ** 0.5)

    def guess() -> AmortizedPosterior:
        if encoder is None:
            raise ValueError(f"{name} needs an encoder")
        return AmortizedPosterior(encoder)

    ways: dict[str, Callable[[], Posterior]] = {
        "published": lambda: MCMCPosterior(Langevin(0.005, 20)),
        "langevin": lambda: MCMCPosterior(Langevin(0.005, calls)),
        "mala": lambda: MCMCPosterior(mala),
        "hmc": lambda: MCMCPosterior(hmc),
        "persistent": lambda: MCMCPosterior(hmc, PersistentChains(num_chains, dim)),
        "annealed": lambda: MCMCPosterior(Annealed(quarter, LADDER)),
        "tempered": lambda: MCMCPosterior(ParallelTempering(quarter, LADDER)),
        "encoder": guess,
        "refined": lambda: MCMCPosterior(mala, guess()),
        "restarts": lambda: MCMCPosterior(half, Restarts(half, calls // 2)),
        "annealed_restarts": lambda: Restarts(
            MALA(step, 1), starts, max(1, (calls // starts + 2) // 3)
        ),
        "encoder_restarts": lambda: MCMCPosterior(half, Restarts(half, calls // 2, 1, guess())),
        "exact": GridPosterior,
    }
    return ways[name]()


def draw(
    posterior: Posterior, model: LatentModel, x: Tensor, num: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Draws (num, batch, dim) for x (batch, event), and how often the decoder was called for each;
    persistent chains are visited ``VISITS`` times, and the calls are those of a visit.
    """
    rows = x.repeat(num, 1)
    index = torch.arange(len(rows))
    persistent = isinstance(getattr(posterior, "start", None), PersistentChains)
    calls = 0

    def count(module: nn.Module, z: tuple[Tensor, ...]) -> None:
        nonlocal calls
        calls += len(z[0])

    hook = model.likelihood.register_forward_pre_hook(count)
    visits = VISITS if persistent else 1
    for _ in range(visits - 1):
        posterior.sample(model, rows, index=index, generator=generator)
    z = posterior.sample(model, rows, index=index, generator=generator)
    hook.remove()
    return z.view(num, len(x), -1), calls / visits / len(rows)
