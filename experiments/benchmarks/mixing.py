"""Effective samples a CPU second of Metropolis-adjusted samplers: ``python -m
experiments.benchmarks.mixing``

Target: a Gaussian in 10 dimensions with correlations of .8. All libraries use the same step sizes,
500 draws a chain and 100 chains, pyro one chain, as it has no batches of chains. Figures are CPU
seconds per effective sample (of the worst coordinate), the unit being this library's MALA.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.benchmarks import peers  # noqa: F401  (keeps XLA on one thread)
from experiments.benchmarks.timing import Ratios, available, measured, ratios
from samplers import HMC, MALA, Gaussian, Sampler, ess

DIM, CHAINS, DRAWS, ROUNDS = 10, 100, 500, 7
MALA_STEP, HMC_STEP, LEAPFROG = 0.12, 0.35, 8


def target() -> Gaussian:
    return Gaussian(torch.zeros(DIM), 0.2 * torch.eye(DIM) + 0.8)


def own(sampler: Sampler) -> Callable[[], Tensor]:
    """Draws (DRAWS, chains, DIM) of this library."""
    density, start = target(), target().sample(CHAINS)
    return lambda: torch.stack([state.position for state, _ in sampler.run(density, start)])


def blackjax(kind: str) -> Callable[[], Tensor]:
    """Draws of blackjax: a compiled scan over chains in parallel."""
    import blackjax  # pyright: ignore[reportMissingImports]
    import jax  # pyright: ignore[reportMissingImports]
    from jax import numpy as jnp  # pyright: ignore[reportMissingImports]

    precision = jnp.asarray(target().precision.cpu().numpy())

    def log_density(x: Any) -> Any:
        return -0.5 * x @ precision @ x

    if kind == "MALA":
        kernel = blackjax.mala(log_density, MALA_STEP)
    else:
        kernel = blackjax.hmc(log_density, HMC_STEP, jnp.ones(DIM), LEAPFROG)
    states = jax.vmap(kernel.init)(jnp.asarray(target().sample(CHAINS).cpu().numpy()))

    def one(states: Any, key: Any) -> tuple[Any, Any]:
        states, _ = jax.vmap(kernel.step)(jax.random.split(key, CHAINS), states)
        return states, states.position

    scan = jax.jit(lambda key: jax.lax.scan(one, states, jax.random.split(key, DRAWS))[1])
    return lambda: torch.as_tensor(np.array(scan(jax.random.key(0))))


def pyro() -> Callable[[], Tensor]:
    """Draws of pyro's HMC, one chain, no adaptation."""
    from pyro.infer import HMC as PyroHMC
    from pyro.infer import MCMC

    density = target()
    options: dict[str, Any] = {
        "step_size": HMC_STEP,
        "num_steps": LEAPFROG,
        "adapt_step_size": False,
    }
    kernel = PyroHMC(
        potential_fn=lambda z: -density(z["x"][None])[0], adapt_mass_matrix=False, **options
    )

    def run() -> Tensor:
        start = {"x": density.sample(1)[0]}
        mcmc = MCMC(
            kernel, num_samples=DRAWS, warmup_steps=0, initial_params=start, disable_progbar=True
        )
        mcmc.run()
        return mcmc.get_samples()["x"].unsqueeze(1)

    return run


def mixing() -> Ratios:
    """CPU seconds per effective sample."""
    contestants = {
        "latent-ebm MALA": own(MALA(MALA_STEP, DRAWS)),
        "latent-ebm HMC": own(HMC(HMC_STEP, LEAPFROG, DRAWS)),
    }
    contestants |= available(
        {
            "blackjax MALA": partial(blackjax, "MALA"),
            "blackjax HMC": partial(blackjax, "HMC"),
            "pyro HMC, one chain": pyro,
        }
    )
    costs: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(ROUNDS + 1):
        for name, run in contestants.items():
            start = time.process_time()
            draws = run()
            seconds = time.process_time() - start
            if round_:
                costs[name].append(seconds / float(ess(draws).min()))
    return ratios(costs, "latent-ebm MALA")


def main() -> None:
    measured("mixing", mixing, dim=DIM, chains=CHAINS, draws=DRAWS)


if __name__ == "__main__":
    main()
