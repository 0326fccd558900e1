r"""A network as a denoiser, whatever it was trained to predict.

With the noise ``s = sigma / alpha`` in units of the data and ``x_ve = x_t / alpha``, each kind of
network has a frame that it expects its input in, and a linear reading of its output F:

    edm    x_ve / sqrt(s^2 + d^2)    D = d^2 / (s^2 + d^2) x_ve + s d / sqrt(s^2 + d^2) F
    v      x_ve / sqrt(s^2 + d^2)    D = d^2 / (s^2 + d^2) x_ve - s d / sqrt(s^2 + d^2) F
    eps    x_ve / sqrt(s^2 + 1)      D = x_ve - s F
    x      x_ve / sqrt(s^2 + 1)      D = F
    flow   x_ve / (s + 1)            D = (x_ve - s F) / (s + 1)

with the standard deviation d of the data, ``data_scale``. "edm" and "v", which differ in the sign
of F, have inputs and targets of unit variance at every noise level. By this table a network can be
used in the frame of any schedule, not only its own.
"""

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor, nn

from latent_ebm.denoisers.base import Denoiser
from samplers.checks import check_kind, check_numbers
from samplers.schedules import Schedule, broadcast

Prediction = Literal["edm", "v", "eps", "x", "flow"]


class Preconditioned(Denoiser):
    """``D = c_skip x_t + c_out F(c_in x_t, noise_level)`` by the table above, ``F = network``.

    Source: Karras et al. 2022, arXiv:2206.00364; Salimans & Ho 2022, arXiv:2202.00512; Lipman et
    al. 2022, arXiv:2210.02747.

    Args:
        network: ``network(x, noise_level, **condition)`` returns a tensor like x (batch,
            \\*event); ``noise_level`` (batch,) has the dtype of x.
        schedule: The noise.
        prediction: What the network predicts: "edm", "v", "eps", "x" or "flow".
        data_scale: The standard deviation d of the data, used by "edm" and "v".
        level: Makes the noise level (batch,) of the log-SNR (batch,); null: ``log(s) / 4``.

    Raises:
        ValueError: For another ``prediction``, or a ``data_scale`` that is not positive.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: Prediction = "edm",
        data_scale: float = 1.0,
        level: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if prediction not in get_args(Prediction):
            raise ValueError(
                f"prediction must be one of {', '.join(get_args(Prediction))}, got {prediction!r}"
            )
        check_numbers(self, "positive", data_scale=data_scale)
        check_kind(self, Schedule, schedule=schedule)
        self.network, self.schedule, self.prediction = network, schedule, prediction
        self.data_scale, self.level = data_scale, level

    def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        log_snr = self.schedule.log_snr(t)
        c_in, c_skip, c_out = (
            broadcast(c, x_t) for c in self.coefficients(*self.schedule.frame(log_snr))
        )
        noise_level = (
            (self.level or log_sigma_level)(log_snr).to(x_t).expand(x_t.shape[0])
        )  # len() would fix the rows of an export
        out = self.network(c_in * x_t, noise_level, **condition)
        if out.shape != x_t.shape:
            raise ValueError(
                f"network must return the shape {tuple(x_t.shape)} of x_t, got {tuple(out.shape)}"
            )
        return c_skip * x_t + c_out * out

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(c_in, c_skip, c_out)`` like ``alpha`` and ``sigma``."""
        if self.prediction == "flow":
            scale = 1 / (alpha + sigma)
            return scale, scale, -sigma * scale
        d = self.data_scale if self.prediction in ("edm", "v") else 1.0
        c_in = ((alpha * d) ** 2 + sigma**2).rsqrt()
        if self.prediction == "eps":
            return c_in, 1 / alpha, -sigma / alpha
        if self.prediction == "x":
            return c_in, 0 * alpha, 1 + 0 * alpha
        sign = 1 if self.prediction == "edm" else -1
        return c_in, alpha * (d * c_in) ** 2, sign * sigma * d * c_in


def log_sigma_level(log_snr: Tensor) -> Tensor:
    """``log(sigma / alpha) / 4``, the noise level of EDM networks."""
    return -log_snr / 8
