r"""One-step students ``x = g(z)``, z ~ N(0, I), and the exact denoiser of a linear one."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from latent_ebm.denoisers import Denoiser, Preconditioned
from latent_ebm.denoisers.from_noise import check_log_snr
from latent_ebm.networks import MobileUNet
from samplers.schedules import Schedule, broadcast


class OneStep(Artefact):
    """``g(z) = D(sigma_t z, t)``: a trainable copy of ``denoiser`` at one fixed time t.

    z has the shape of x; conditions are passed on as keywords. Source: Luo et al. 2023,
    arXiv:2305.18455; Xie et al. 2024, arXiv:2405.16852, with -6 on ImageNet.

    Args:
        denoiser: The denoiser that is copied.
        init_log_snr: The log-SNR at the time t.

    Raises:
        ValueError: For a log-SNR outside the denoiser's schedule.
    """

    t: Tensor

    def __init__(self, denoiser: Denoiser, init_log_snr: float = -6.0) -> None:
        super().__init__()
        check_log_snr("init_log_snr", init_log_snr, denoiser.schedule)
        self.init_log_snr = init_log_snr
        self.denoiser = deepcopy(denoiser).requires_grad_()
        self.register_buffer("t", denoiser.schedule.time(torch.tensor(init_log_snr)))

    def forward(self, z: Tensor, **condition: Tensor) -> Tensor:
        """Samples like ``z`` (batch, \\*event)."""
        _, sigma = self.denoiser.schedule(self.t)
        return self.denoiser(broadcast(sigma, z) * z, self.t, **condition)


class LinearDenoiser(Denoiser):
    """The exact denoiser of the samples ``W z + b`` of a linear ``student``. It follows the
    student's weights as they change.

    ``D = b + alpha C (alpha^2 C + sigma^2 I)^-1 (x_t - alpha b)`` with ``C = W W^T``. As ``fake``
    of a distiller it is the optimum, which a network would have to learn anew after every step of
    the student.
    """

    def __init__(self, student: nn.Linear, schedule: Schedule) -> None:
        super().__init__()
        self.student, self.schedule = student, schedule

    def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        alpha, sigma = (broadcast(a, x_t) for a in self.schedule(t))
        axes, scales, _ = torch.linalg.svd(self.student.weight, full_matrices=False)
        shrink = alpha * scales**2 / (alpha**2 * scales**2 + sigma**2)
        return self.student.bias + (shrink * ((x_t - alpha * self.student.bias) @ axes)) @ axes.mT


def check_takes_guidance(student: Denoiser) -> None:
    """Raise ``ValueError`` for a ``MobileUNet`` that does not take the weight of guidance; other
    networks are not looked at.
    """
    network = student.network if isinstance(student, Preconditioned) else None
    if isinstance(network, MobileUNet) and not network.guided:
        raise ValueError(
            "student must take the weight for a range of guidance, as a MobileUNet that is guided "
            "does, got one that is not"
        )


def taking_guidance(denoiser: Denoiser) -> Denoiser:
    """A copy of ``denoiser`` whose network takes the weight of guidance too; untrained, it ignores
    the weight. Raises ``ValueError`` unless the network is a ``MobileUNet``.
    """
    if not (isinstance(denoiser, Preconditioned) and isinstance(denoiser.network, MobileUNet)):
        raise ValueError(
            "student must be given for a range of guidance if the teacher is no MobileUNet: a "
            f"denoiser that takes guidance (batch,) as a condition, got a "
            f"{type(denoiser).__name__} and none"
        )
    made = deepcopy(denoiser)
    made.network = denoiser.network.with_guidance()
    return made
