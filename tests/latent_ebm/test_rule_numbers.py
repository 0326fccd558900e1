"""Numbers that learning rules refuse when they are made, and what the command line says of their
arguments.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from docstring_parser import parse

from latent_ebm.cli import main
from latent_ebm.denoisers import Preconditioned
from latent_ebm.distillation import Progressive, UFOGen
from latent_ebm.learning import Augment, Denoising, DiffusionGAN, RatioStages, ScoreMatching
from latent_ebm.networks import MLP, Critic, DenoiserMLP, WithLatent
from samplers import DDIM, MALA, VPCosine
from tests.latent_ebm.test_learning import (
    ADAM,
    EVENT,
    RULES,
    PlainDenoiser,
    data_space,
    em_distillation,
    mle,
    ratio,
    stages,
)

SCHEDULE = VPCosine(-10, 10)


def gan(**numbers: Any) -> DiffusionGAN:
    generator, critic = (
        WithLatent(DenoiserMLP(EVENT + 2, (8,))),
        Critic(MLP(2 * EVENT + 1, 1, (8,))),
    )
    return DiffusionGAN(
        generator,
        critic,
        SCHEDULE,
        **{"shape": (EVENT,), "latent_shape": (2,), "optimizer": ADAM, **numbers},
    )


def denoising(reverse: VPCosine = SCHEDULE, **numbers: Any) -> Denoising:
    denoiser = Preconditioned(DenoiserMLP(EVENT, (8,)), SCHEDULE)
    return Denoising(
        denoiser, DDIM(reverse, 2), **{"shape": (EVENT,), "optimizer": ADAM, **numbers}
    )


def progressive(**numbers: Any) -> Any:
    return Progressive(PlainDenoiser(), None, (EVENT,), ADAM, **{"teacher_steps": 4, **numbers})


POSITIVE, NATURAL, COUNT = "finite and positive", "finite and non-negative", "an integer >= 1"
BAD = {
    POSITIVE: (0.0, math.nan, math.inf),
    NATURAL: (-1e-3, math.nan, math.inf),
    COUNT: (0, 1.5, True, math.nan),
}
NUMBERS: list[tuple[Callable[..., Any], str, str]] = [
    (mle, "prior_lr", NATURAL),
    (ratio, "prior_lr", NATURAL),
    (gan, "critic_lr", NATURAL),
    (gan, "penalty", NATURAL),
    (gan, "penalty_every", COUNT),
    (gan, "num_steps", COUNT),
    (gan, "latent_shape", COUNT),
    (em_distillation, "fake_lr", NATURAL),
    (em_distillation, "weight_power", NATURAL),
    (em_distillation, "student_every", COUNT),
    (lambda **n: UFOGen(PlainDenoiser(), None, (EVENT,), ADAM, **n), "reconstruction", NATURAL),
    (progressive, "stage_length", COUNT),
    (progressive, "num_steps", COUNT),
    (denoising, "shape", COUNT),
    (stages, "tolerance", NATURAL),
    (stages, "min_drop", NATURAL),
    (stages, "patience", COUNT),
    (stages, "max_stages", COUNT),
    (lambda **n: ScoreMatching(data_space(MALA(0.1, 3)), ADAM, **n), "noise", POSITIVE),
    (Augment, "turn", NATURAL),
]


@pytest.mark.parametrize(
    ("make", "name", "rule"),
    NUMBERS,
    ids=[f"{name}-{i}" for i, (_, name, _) in enumerate(NUMBERS)],
)
def test_refused_numbers(make: Callable[..., Any], name: str, rule: str) -> None:
    for value in BAD[rule]:
        with pytest.raises(ValueError, match=f"{name} must be {rule}, got {value}"):
            make(**{name: value})
    good: dict[str, Any] = {POSITIVE: np.float32(1), NATURAL: np.float64(0.5), COUNT: np.int64(2)}
    make(**{name: good[rule]})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: denoising(VPCosine(-8, 8)),
            r"reverse must have the schedule VPCosine.* of denoiser, got VPCosine.*8",
        ),
        (lambda: denoising(dropout=math.nan), r"dropout must be in \[0, 1\], got nan"),
        (lambda: denoising(log_snr=(math.nan, 1.0)), r"log_snr\[0\] must be finite, got nan"),
        (lambda: denoising(log_snr=(0.0, math.inf)), r"log_snr\[1\] must be finite, got inf"),
        (
            lambda: mle(prior_chains="hot"),
            'prior_chains must be "cold", "warm" or PersistentChains, got \'hot\'',
        ),
        (lambda: em_distillation(log_snr=(math.nan, 1.0)), "log_snr must be finite, got nan"),
    ],
)
def test_refused_arguments(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


def test_the_help_of_a_rule_describes_every_argument() -> None:
    """jsonargparse takes its help from there."""
    for rule in {type(make()) for make in RULES.values()} | {Augment, RatioStages}:
        described = {p.arg_name: p.description for p in parse(rule.__doc__ or "").params}
        assert set(described) == set(inspect.signature(rule).parameters), rule
        assert all(described.values()), rule


def test_the_help_of_a_rule_begins_with_a_whole_sentence() -> None:
    """jsonargparse shows the first line of a docstring only."""
    for rule in {type(make()) for make in RULES.values()}:
        assert (rule.__doc__ or "").splitlines()[0].endswith("."), rule


def test_the_command_line_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--model.help=latent_ebm.learning.ShortRunMLE"]) == 0
    assert "Draws the latents z+ of a batch in training." in capsys.readouterr().out
    assert main(["fit", "--help"]) == 0
    assert "A run never overwrites another run" in " ".join(capsys.readouterr().out.split())
