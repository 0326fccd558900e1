"""What is given on the CPU is worked on there, whatever the default device is.

Tensors of the meta device, made the default here, have no values and do not mix with others: a
tensor that is made on the default device by mistake raises or shows.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from latent_ebm import load
from latent_ebm.applications import TextToImage
from latent_ebm.denoisers import GaussianMixtureDenoiser, Preconditioned, generate
from latent_ebm.detection import LatentEBMDetector
from latent_ebm.kernels import leave_one_out_bandwidth, local_bandwidths
from latent_ebm.metrics import frechet_distance, knn_kl, mmd, prdc
from latent_ebm.networks import MobileUNet
from latent_ebm.networks.classifier import fit_classifier, frozen_classifier
from latent_ebm.plots import histogram_figure, image_grid
from latent_ebm.text import TextConditioner, TextTransformer, WordTokenizer
from samplers import (
    DDIM,
    Ancestral,
    Gaussian,
    Heun,
    Langevin,
    ProbabilityFlow,
    Renoising,
    ReverseSampler,
    VPCosine,
    VPDiscrete,
    annealed_importance,
    ess,
    kernel_stein_discrepancy,
    resample,
    split_rhat,
)
from tests.samplers.table import TABLE, Row

pytestmark = pytest.mark.cpu  # what is made on the CPU, with generators of the CPU

COSINE = VPCosine()


def seeded() -> torch.Generator:
    return torch.Generator("cpu").manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(), device="cpu", dtype=torch.float64)


def labels(num: int) -> Tensor:
    return torch.arange(num, device="cpu") % 2


def gaussian() -> Gaussian:
    return Gaussian(normal(2), torch.eye(2, device="cpu", dtype=torch.float64))


def chain(row: Row) -> Tensor:
    return row.sampler.sample(gaussian(), normal(5, 2), generator=seeded())


def generated(kind: Callable[..., ReverseSampler], schedule: VPCosine | VPDiscrete) -> Tensor:
    denoiser = GaussianMixtureDenoiser(normal(2).exp(), normal(2, 3), normal(2).exp(), schedule)
    return generate(denoiser, kind(schedule), (3,), 4, generator=seeded())


def detected(**settings: object) -> object:
    x = normal(200, 3).numpy()
    detector = LatentEBMDetector(random_state=0, **settings).fit(x)
    return [detector.score_samples(x), *detector.partial_fit(x[:20]).explain(x[:5])]


def pictures() -> list[np.ndarray]:
    settings = {"image_shape": (1, 8, 8), "max_steps": 2, "latent_dim": 3, "channels": 4}
    x = normal(30, 64).numpy()
    return [LatentEBMDetector(random_state=0, **settings).fit(x).score_samples(x)]


def classified() -> list[float]:
    network = frozen_classifier(normal(20, 1, 8, 8), labels(20), 2, 2, progress=False)
    network.requires_grad_()
    return fit_classifier(network, normal(20, 1, 8, 8), labels(20), progress=False)


def loaded(model: torch.nn.Module) -> torch.nn.Module:
    """The model with entries of no other randomness than ``seeded``."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=seeded())
    return model


with torch.device("cpu"):
    WORDS = WordTokenizer(["red", "green"], max_words=3)
    NETWORK = MobileUNet((4, 4, 4), 8, (8,), (1,), (1,), (True,), (True,))
    PARTS = TextConditioner(TextTransformer(WORDS, dim=8)), Preconditioned(NETWORK, COSINE)
    DRAWER = loaded(TextToImage(*PARTS, DDIM(COSINE, 2), (4, 4, 4), 2.0))

CASES: dict[str, Callable[[], object]] = {
    **{f"{row.name}": lambda row=row: chain(row) for row in TABLE},
    "noise level": lambda: [row.sampler.noise_level for row in TABLE],
    "ess": lambda: ess(normal(40, 3, 2)),
    "split_rhat": lambda: split_rhat(normal(40, 3, 2)),
    "kernel stein": lambda: kernel_stein_discrepancy(gaussian(), normal(30, 2)),
    "resample": lambda: resample(normal(9, 2), normal(9), 4, generator=seeded()),
    "annealed importance": lambda: annealed_importance(
        gaussian(), gaussian(), normal(9, 2), Langevin(0.1, 2), 3, generator=seeded()
    ),
    **{
        f"{kind.__name__} {schedule}": lambda kind=kind, schedule=schedule: generated(
            lambda s: kind(s, 3), schedule
        )
        for kind in (DDIM, Ancestral, Heun, Renoising)
        for schedule in (COSINE, VPDiscrete(10))
    },
    "probability flow": lambda: generated(ProbabilityFlow, COSINE),
    "bandwidths": lambda: [
        leave_one_out_bandwidth(normal(30, 2)),
        *local_bandwidths(normal(30, 2), 3),
    ],
    "metrics": lambda: [f(normal(30, 2), normal(20, 2)) for f in (frechet_distance, mmd)],
    "knn": lambda: [
        knn_kl(normal(30, 2), normal(20, 2)),
        *prdc(normal(30, 2), normal(20, 2)).values(),
    ],
    "plots": lambda: [
        histogram_figure({"a": normal(30)}, "a") and 0,
        image_grid(normal(2, 1, 4, 4)),
    ],
    "classifier": classified,
    "detector": detected,
    "stages": lambda: detected(max_stages=1),
    "trimmed": lambda: detected(energy="elbo", trim=0.1),
    "images": pictures,
    "text to image": lambda: DRAWER.generate(["red", "green"], num=2, generator=seeded()),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_default_device_makes_no_difference(case: Callable[[], object]) -> None:
    with torch.device("cpu"):
        expected = case()
    with torch.device("meta"):
        found = case()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_what_is_loaded_lies_on_the_cpu(tmp_path: Path) -> None:
    DRAWER.save(tmp_path / "drawer")
    with torch.device("meta"):
        found = load(tmp_path / "drawer")
    assert not any(tensor.is_meta for tensor in (*found.parameters(), *found.buffers()))
