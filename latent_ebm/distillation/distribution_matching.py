r"""Distribution matching: the student follows the gap of the two denoisers at its own noised
samples.

With ``x = g(z)`` and ``x_t = alpha x + sigma eps``, the gradient of ``E_t[w KL(p(x_t) ||
q(x_t))]`` with respect to the student is ``-E[w (alpha^2 / sigma^2) J_g(z)^T (D_q - D_p)(x_t)]``:
the terms in which the student's own density changes vanish.
"""

from torch import Tensor

from latent_ebm.conditions import Condition
from latent_ebm.distillation.base import ScoreDistiller
from latent_ebm.objectives import score_difference


class DistributionMatching(ScoreDistiller):
    """Minimises the reverse KL divergence from the student's samples to the teacher's.

    The divergence is integrated over noise levels; see ``ScoreDistiller``. This is the part of DMD
    that needs no data and no discriminator. It seeks modes: the loss does not notice a mode that
    the student never visits. Source: Luo et al. 2023, arXiv:2305.18455 (Diff-Instruct); Wang et
    al. 2023, arXiv:2305.16213 (VSD); Yin et al. 2023, arXiv:2311.18828 (DMD).

    Args:
        teacher: The frozen denoiser of the data.
        student: Maps z ~ N(0, I) to x: ``OneStep`` of the teacher, or any other network that takes
            conditions as keywords.
        fake: A denoiser of the teacher's schedule that learns the student's samples; null: a copy
            of the teacher.
        latent_shape: The shape of z.
        optimizer: Makes the optimiser from groups of parameters.
        log_snr: Noise levels are uniform in log-SNR between these.
        weight_power: The divergence at a noise level has the weight ``(sigma / alpha)^(2
            weight_power)``.
        fake_lr: The learning rate of ``fake``, if it differs from the optimiser's.
        student_every: ``fake`` is trained at every step, the student once in this many steps.
        conditioner: Turns what a batch carries (labels, token ids) into the condition of teacher,
            student and fake, and is held fixed; null: no condition.
        guidance: The weight of classifier-free guidance of the teacher, away from the null
            condition; 1 means no guidance.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.
        latents: An autoencoder, held fixed, in whose latents teacher and student work: rows x of a
            batch are encoded, and samples decoded; null: they work on data.
    """

    def student_loss(self, z: Tensor, x: Tensor, condition: Condition) -> Tensor:
        noise = self.draw_noise(x)
        gap = self.gap(x, noise, condition)
        self.figures = {"gap": gap.flatten(1).norm(dim=1).mean()}
        return score_difference(self.student(z, **condition), gap, self.weight(noise))
