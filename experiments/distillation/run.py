"""What K does to a one-step student: ``python -m experiments.distillation``

EM Distillation (arXiv:2405.16852) against distribution matching on teachers whose every score is
known. Experiment "affine": a mixture of two Gaussians and an affine student, whose own denoiser is
known too, so that nothing but the E-step differs; 5 seeds are trained side by side.
"cancellation": variance and bias of the student's gradient, with and without noise cancellation.
Every comparison is made at equal updates and at equal numbers of denoiser calls.
"""

import argparse
import math
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments.common import cached
from latent_ebm.denoisers import Denoiser, GaussianMixtureDenoiser
from latent_ebm.distillation import DistributionMatching, EMDistillation
from latent_ebm.distillation.base import ScoreDistiller
from latent_ebm.objectives import regression
from samplers import Langevin
from samplers.base import normal_like
from samplers.schedules import VE, broadcast

SCHEDULE, SEEDS, ROWS, STEP_SIZE = VE(), 5, 512, 0.16
UPDATES, LR = 1000, 1e-2
TEACHER = ((0.7, 0.3), ((-1.0,), (1.5,)), (0.25, 0.25))
LOG_SNRS = (0.0, 1.0, -3.0)
Z_STEPS = (1e-4, 4e-4, 1.6e-3, 6.4e-3, 2.56e-2)


class Affine(nn.Module):
    """``x = scale z + shift``, one pair of numbers a seed; a batch holds the rows (seeds x rows,
    1) of all seeds in turn.
    """

    def __init__(self, num: int, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((num, 1, 1), scale))
        self.shift = nn.Parameter(torch.zeros(num, 1, 1))

    def forward(self, z: Tensor) -> Tensor:
        return (self.scale * z.view(len(self.scale), -1, 1) + self.shift).view_as(z)


class AffineDenoiser(Denoiser):
    """The exact denoiser of an ``Affine`` student, seed by seed."""

    def __init__(self, student: Affine) -> None:
        super().__init__()
        self.student, self.schedule = student, SCHEDULE

    def forward(self, x_t: Tensor, t: Tensor, **condition: Any) -> Tensor:
        lanes = (len(self.student.scale), -1, 1)
        alpha, sigma = (a.to(x_t).view(lanes) for a in self.schedule(t))
        square, shift = self.student.scale**2, self.student.shift
        gain = alpha * square / (alpha**2 * square + sigma**2)
        return (shift + gain * (x_t.view(lanes) - alpha * shift)).view_as(x_t)


class ExactEM(ScoreDistiller):
    """EM with exact posterior draws for an ``Affine`` student and draws of the teacher: what a
    long chain should come to.
    """

    student: Affine
    teacher: GaussianMixtureDenoiser

    def student_loss(self, z: Tensor, x: Tensor, condition: dict[str, Tensor]) -> Tensor:
        noise = self.draw_noise(x)
        ratio = broadcast(noise.sigma / noise.alpha, x)
        target = self.teacher.sample(len(x)) + ratio * noise.eps
        scale, shift = self.student.scale, self.student.shift
        scale, shift = (
            p.detach().expand(-1, len(x) // len(p), 1).reshape(-1, 1) for p in (scale, shift)
        )
        variance = scale**2 + ratio**2
        z = scale * (target - shift) / variance + ratio / variance.sqrt() * normal_like(z, None)
        return regression(self.student(z), target, self.weight(noise))


RULES: dict[str, dict[str, Any]] = {
    "dmd": {"rule": "DistributionMatching", "K": 1},
    "em-4": {"rule": "EMDistillation", "K": 4, "z_step_size": 0.0016},
    "em-16": {"rule": "EMDistillation", "K": 16, "z_step_size": 0.0016},
    "em-16-from-optimum": {
        "rule": "EMDistillation",
        "K": 16,
        "z_step_size": 0.0016,
        "start": 1.173,
    },
    "em-16-wide": {"rule": "EMDistillation", "K": 16, "z_step_size": 0.016},
    "em-64-uncancelled": {
        "rule": "EMDistillation",
        "K": 64,
        "z_step_size": 0.016,
        "cancel_noise": False,
    },
    "exact": {"rule": "ExactEM", "K": 1},
}


def teacher() -> GaussianMixtureDenoiser:
    return GaussianMixtureDenoiser(*TEACHER, schedule=SCHEDULE)


def make_rule(setting: dict[str, Any], scale: float = 0.3, num: int = SEEDS) -> tuple[Any, Affine]:
    """The rule of a setting and its student, of standard deviation ``scale`` about zero."""
    student = Affine(num, scale)
    shared = (
        teacher(),
        student,
        AffineDenoiser(student),
        1,
        partial(torch.optim.Adam, lr=LR, betas=(0.0, 0.99)),
    )
    log_snr = (setting["log_snr_min"], 6.0)
    if setting["rule"] == "EMDistillation":
        more = {name: setting[name] for name in ("z_step_size", "cancel_noise") if name in setting}
        return EMDistillation(
            *shared, sampler=Langevin(STEP_SIZE, setting["K"]), log_snr=log_snr, **more
        ), student
    rule = {"DistributionMatching": DistributionMatching, "ExactEM": ExactEM}[setting["rule"]]
    return rule(*shared, log_snr=log_snr), student


def train(rule: ScoreDistiller, rows: int, updates: int, last: float = 0.0) -> float:
    """Train at learning rates that fall linearly to ``last`` times what they were; CPU seconds."""
    optimizer, start = rule.make_optimizers()[0], time.process_time()
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, last, updates)
    batch = torch.empty(rows, 1)
    for _ in range(updates):
        optimizer.zero_grad()
        torch.stack(list(rule.losses(batch).values())).sum().backward()
        optimizer.step()
        schedule.step()
    return time.process_time() - start


def run_affine(setting: dict[str, Any]) -> dict[str, Any]:
    """Train ``setting["updates"]`` steps, then both divergences of clean data and student, a
    number a seed.
    """
    torch.manual_seed(0)
    rule, student = make_rule(setting, setting.get("start", 0.3))
    seconds = train(rule, SEEDS * ROWS, setting["updates"])
    scale, shift = student.scale.detach().abs().flatten(), student.shift.detach().flatten()
    forward, reverse = divergences(scale, shift)
    figures = {"forward": forward, "reverse": reverse, "std": scale, "mean": shift}
    return {**{name: value.tolist() for name, value in figures.items()}, "seconds": seconds}


def divergences(scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """KL(teacher ‖ student) and KL(student ‖ teacher) of Gaussian students (n,) by quadrature, in
    nats.
    """
    x = torch.linspace(-8, 8, 16_001, dtype=torch.float64)[:, None]
    weights, means, scales = (torch.tensor(v, dtype=torch.float64) for v in TEACHER)
    log_q = (
        weights.log() + torch.distributions.Normal(means[:, 0], scales).log_prob(x)
    ).logsumexp(1, keepdim=True)
    log_p = torch.distributions.Normal(shift.double(), scale.double()).log_prob(x)
    cell = 16 / 16_000
    return (log_q.exp() * (log_q - log_p)).sum(0) * cell, (log_p.exp() * (log_p - log_q)).sum(
        0
    ) * cell


def affine_settings() -> dict[str, dict[str, Any]]:
    """Every run by name: each rule at equal updates, and at the denoiser calls of ``em-16``."""
    runs = {}
    for log_snr_min in LOG_SNRS:
        for name, rule in RULES.items():
            shared = {
                **rule,
                "log_snr_min": log_snr_min,
                "rows": ROWS,
                "lr": LR,
                "step_size": STEP_SIZE,
            }
            equal_calls = UPDATES * 16 // rule["K"] if name in ("dmd", "em-4") else UPDATES
            for updates in sorted({UPDATES, equal_calls}):
                runs[f"affine-{log_snr_min:g}-{name}-{updates}"] = {**shared, "updates": updates}
    return runs


def affine() -> None:
    """The table of rules and noise ranges."""
    for name, setting in affine_settings().items():
        result = cached(f"distillation/{name}", setting, partial(run_affine, setting))
        kls = " ".join(f"{kl:.3f}" for kl in result["forward"])
        print(
            f"  forward KL {kls}  std {result['std'][0]:.3f}  {result['seconds']:.0f} s",
            flush=True,
        )


def run_cancellation(setting: dict[str, Any]) -> dict[str, float]:
    """What noise cancellation does to the gradient of the student's scale, from one set of chains.

    ``gradient`` is the mean over rows without cancellation, ``ratio`` the variance without over
    that with it, ``bias`` the difference of their means. The noise N that is left out does not
    depend on the start z_0, so that ``E[N z] = E[N (z - z_0)]``, which has less variance.
    """
    torch.manual_seed(0)
    rule, student = make_rule(setting, setting["scale"], 1)
    student.shift.data.fill_(setting["shift"])
    z0 = torch.randn(setting["rows"], 1)
    noise, shifts, z = rule.draw_noise(z0), {}, z0
    for cancel in (True, False):
        rule.cancel_noise = cancel
        torch.manual_seed(1)
        z, shifts[cancel] = rule.infer(z0, noise, {})
    left_out = (shifts[False] - shifts[True]) * (z - z0)
    with_noise, without = shifts[False] * z, shifts[True] * z
    return {
        "gradient": float(with_noise.mean()),
        "ratio": float(with_noise.var() / without.var()),
        "bias": float(left_out.mean()),
        "error": float(left_out.std()) / math.sqrt(len(z0)),
    }


def cancellation() -> None:
    """Variance and bias over steps of z, at two students: one too narrow, one near the best."""
    for scale, log_snr_min in ((0.5, 0.0), (1.0, 0.0), (1.0, -6.0)):
        for z_step_size in Z_STEPS:
            rule = {**RULES["em-16"], "z_step_size": z_step_size, "log_snr_min": log_snr_min}
            setting = {
                **rule,
                "scale": scale,
                "shift": -0.25,
                "rows": 100_000,
                "step_size": STEP_SIZE,
            }
            name = f"cancellation-{log_snr_min:g}-{scale:g}-{z_step_size:g}"
            result = cached(f"distillation/{name}", setting, partial(run_cancellation, setting))
            print(
                "  " + "  ".join(f"{key} {value:.5f}" for key, value in result.items()), flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=PARTS, default=list(PARTS))
    torch.set_num_threads(1)
    for part in parser.parse_args().parts:
        PARTS[part]()


PARTS = {"affine": affine, "cancellation": cancellation}
