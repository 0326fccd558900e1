"""Do longer E-steps keep more modes when nothing of the student is exact? ``python -m
experiments.distillation_modes``

Perceptrons as students, and a ``fake`` that must learn the student's denoiser as it moves; only
the teachers are exact: "digits", 80 Gaussians fitted to 16 principal components of handwritten
digits, with a student of 4 latents, and "ring", eight unequal Gaussians in the plane. EM
Distillation of 8 steps meets distribution matching, one step, at equal updates and at equal CPU
time.
"""

import argparse
from functools import partial
from typing import Any

import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch import Tensor

from experiments.common import cached
from experiments.distillation.run import train
from latent_ebm.data import Digits
from latent_ebm.denoisers import GaussianMixtureDenoiser, Preconditioned
from latent_ebm.distillation import DistributionMatching, EMDistillation
from latent_ebm.metrics import prdc
from latent_ebm.networks import MLP, DenoiserMLP
from samplers import VE, Langevin

SCHEDULE, ROWS, NUM = VE(), 128, 4000
LR, FAKE_LR = 1e-3, 2e-3
LATENTS, LOG_SNRS = {"digits": 4, "ring": 2}, {"digits": (0.0, 4.0), "ring": (-2.0, 4.0)}
BLURS = {"digits": 1.0, "ring": 0.3}  # at which densities are compared: kernel estimates need it
RULES: dict[str, dict[str, Any]] = {
    "dmd": {"K": 1, "updates": 1000},
    "em-8": {"K": 8, "updates": 1000},
    "dmd-equal-time": {"K": 1, "updates": 4000},
    "teacher": {"K": 0, "updates": 0},
}


def digits_teacher() -> GaussianMixtureDenoiser:
    """80 diagonal Gaussians of the digits' first 16 principal components, in units of their root
    mean square.
    """
    data = Digits()
    data.setup()
    z = PCA(16, random_state=0).fit_transform(data.train.x.flatten(1).numpy())
    z = z / (z**2).mean() ** 0.5
    fit = GaussianMixture(80, covariance_type="diag", random_state=0, reg_covar=1e-2).fit(z)
    variances = torch.tensor(fit.covariances_, dtype=torch.float32)
    numbers = (
        torch.tensor(fit.weights_).float(),
        torch.tensor(fit.means_).float(),
        variances.sqrt(),
    )
    return GaussianMixtureDenoiser(*numbers, schedule=SCHEDULE)


def ring_teacher() -> GaussianMixtureDenoiser:
    """Eight Gaussians of scale .15 on a circle of radius 1.5, of weights from 1 to 8 in an order
    that mixes them.
    """
    angle = torch.arange(8) * torch.pi / 4
    means = 1.5 * torch.stack([angle.cos(), angle.sin()], 1)
    weights = torch.tensor([1.0, 5, 2, 7, 3, 8, 4, 6])
    return GaussianMixtureDenoiser(
        weights / weights.sum(), means, torch.full((8,), 0.15), schedule=SCHEDULE
    )


TEACHERS = {"digits": digits_teacher, "ring": ring_teacher}


def run(target: str, setting: dict[str, Any]) -> dict[str, Any]:
    """Train a student, then compare its samples with the teacher's."""
    torch.manual_seed(setting["seed"])
    teacher = TEACHERS[target]()
    if setting["K"] == 0:
        return measure(teacher, teacher.sample(NUM), teacher.sample(NUM), setting["blur"])
    dim = teacher.means.shape[1]
    student = MLP(setting["latents"], dim, (128, 128), "silu")
    fake = Preconditioned(DenoiserMLP(dim, (128, 128)), SCHEDULE)
    shared = (
        teacher,
        student,
        fake,
        setting["latents"],
        partial(torch.optim.Adam, lr=LR, betas=(0.0, 0.99)),
    )
    common = {"log_snr": tuple(setting["log_snr"]), "fake_lr": FAKE_LR}
    if setting["K"] > 1:
        chain = {"sampler": Langevin(0.16, setting["K"]), "z_step_size": setting["z_step_size"]}
        rule = EMDistillation(*shared, **chain, **common)
    else:
        rule = DistributionMatching(*shared, **common)
    seconds = train(rule, ROWS, setting["updates"], last=0.1)
    return {
        **measure(teacher, rule.generate(NUM)["x"], teacher.sample(NUM), setting["blur"]),
        "seconds": seconds,
    }


@torch.no_grad()
def measure(
    teacher: GaussianMixtureDenoiser, x: Tensor, data: Tensor, scale: float
) -> dict[str, float]:
    """Figures of samples x (n, dim) against ``data`` (n, dim) of the teacher.

    ``forward`` and ``reverse`` are KL divergences of distributions blurred by ``scale`` noise,
    where the student's density is the mean of n kernels at samples of it other than those it is
    asked about. ``modes`` counts components that get at least a quarter of their mass;
    ``precision`` and ``recall`` are those of nearest neighbours.
    """
    t = SCHEDULE.time(-2 * torch.tensor(scale).log())
    kernels, asked = x.chunk(2)

    def log_student(y: Tensor) -> Tensor:
        square = torch.cdist(y, kernels).square() / (2 * scale**2)
        constant = (
            torch.tensor(len(kernels)).log()
            + y.shape[1] / 2 * torch.tensor(2 * torch.pi * scale**2).log()
        )
        return (-square).logsumexp(1) - constant

    blurred, generated = (v + scale * torch.randn_like(v) for v in (data, asked))
    weights = teacher.log_weights.exp()
    return {
        "forward": float((teacher.log_prob(blurred, t) - log_student(blurred)).mean()),
        "reverse": float((log_student(generated) - teacher.log_prob(generated, t)).mean()),
        "modes": int((shares(teacher, x) > weights / 4).sum()),
        "of": len(weights),
        **{
            name: value for name, value in prdc(data, x).items() if name in ("precision", "recall")
        },
    }


def shares(teacher: GaussianMixtureDenoiser, x: Tensor) -> Tensor:
    """Mean responsibility (K,) of every component for rows x (n, dim), at the least noise there
    is.
    """
    scaled = (x[:, None] - teacher.means) ** 2 / teacher.variances
    log_joint = teacher.log_weights - 0.5 * (scaled + teacher.variances.log()).sum(2)
    return log_joint.softmax(1).mean(0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--targets", nargs="+", default=list(TEACHERS), choices=TEACHERS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for target in args.targets:
        for seed in range(args.seeds):
            for name, rule in RULES.items():
                shared = {
                    "rows": ROWS,
                    "lr": LR,
                    "fake_lr": FAKE_LR,
                    "latents": LATENTS[target],
                    "seed": seed,
                }
                noise = {
                    "log_snr": list(LOG_SNRS[target]),
                    "blur": BLURS[target],
                    "z_step_size": 0.0016,
                }
                setting = {**rule, **shared, **noise}
                result = cached(
                    f"distillation_modes/{target}-{name}-{seed}",
                    setting,
                    partial(run, target, setting),
                )
                print(
                    "  " + "  ".join(f"{key} {value:.3g}" for key, value in result.items()),
                    flush=True,
                )
