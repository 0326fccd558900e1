"""A gradient flow with its density: ``python -m experiments.benchmarks.density``

Energy network of 2 x 200 units in 10 dimensions, 1,000 points, 20 Euler steps. The unit is the
flow alone, by hand, with the closed-form gradient.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks import peers
from experiments.benchmarks.chain import make_prior
from experiments.benchmarks.timing import Ratios, available, compare, measured
from latent_ebm import EnergyPrior
from samplers import GradientFlow, value_and_grad

DIM, POINTS, STEPS, HORIZON = 10, 1000, 20, 0.5


def by_hand(prior: EnergyPrior, x: Tensor) -> Tensor:
    """Euler steps."""
    for _ in range(STEPS):
        x = x + HORIZON / STEPS * value_and_grad(prior, x)[1]
    return x


def by_hand_with_density(prior: EnergyPrior, x: Tensor) -> Tensor:
    """Euler steps of x and log q, the trace by one backward pass a dimension."""
    log_prob = torch.zeros(len(x))
    for _ in range(STEPS):
        x = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(prior(x).sum(), x, create_graph=True)
        rows = (
            torch.autograd.grad(grad[:, i].sum(), x, retain_graph=True)[0][:, i]
            for i in range(DIM)
        )
        log_prob = log_prob - HORIZON / STEPS * sum(rows)
        x = x + HORIZON / STEPS * grad.detach()
    return log_prob


def diffrax(prior: EnergyPrior, x: Tensor, adaptive: bool) -> Callable[[], Any]:
    """diffrax's Euler or dopri5 on the same field, compiled."""
    import diffrax as dfx  # pyright: ignore[reportMissingImports]
    import jax  # pyright: ignore[reportMissingImports]

    log_density = peers.jax_prior(prior.network)  # pyright: ignore[reportArgumentType]
    term = dfx.ODETerm(lambda t, y, args: jax.grad(lambda z: log_density(z).sum())(y))
    solver = dfx.Dopri5() if adaptive else dfx.Euler()
    control = dfx.PIDController(rtol=1e-5, atol=1e-5) if adaptive else dfx.ConstantStepSize()
    start = jax.numpy.asarray(x.numpy())
    solve = jax.jit(
        lambda y: (
            dfx.diffeqsolve(
                term, solver, 0.0, HORIZON, HORIZON / STEPS, y, stepsize_controller=control
            ).ys
        )
    )
    return lambda: solve(start).block_until_ready()


def density() -> Ratios:
    """All contestants."""
    prior, x = make_prior(dim=DIM), torch.randn(POINTS, DIM)
    euler, adaptive = GradientFlow(HORIZON, "euler", STEPS), GradientFlow(HORIZON)

    def with_density(flow: GradientFlow) -> None:
        with torch.no_grad():
            flow.flow(prior, x, torch.zeros(POINTS))

    contestants = {
        "Euler by hand": partial(by_hand, prior, x),
        "GradientFlow, Euler": partial(euler.sample, prior, x),
        "GradientFlow, Euler, with density": partial(with_density, euler),
        "Euler by hand, with density": partial(by_hand_with_density, prior, x),
        "GradientFlow, dopri5 1e-5": partial(adaptive.sample, prior, x),
        "GradientFlow, dopri5 1e-5, with density": partial(with_density, adaptive),
    }
    contestants |= available(
        {
            "diffrax, Euler": lambda: diffrax(prior, x, False),
            "diffrax, dopri5 1e-5": lambda: diffrax(prior, x, True),
        }
    )
    return compare(contestants, "Euler by hand")


def main() -> None:
    measured("density", density, dim=DIM, points=POINTS, steps=STEPS, horizon=HORIZON)


if __name__ == "__main__":
    main()
