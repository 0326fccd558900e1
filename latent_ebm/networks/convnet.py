r"""Convolutional decoder and encoder for square images.

The decoder maps ``z`` linearly to ``channels * 2^k`` maps of the base size ``s_0``, doubles the
size ``k - 1`` times by ``ConvTranspose2d(4, 2, 1)``, halving the channels, and reaches the image
by one 3x3 convolution at half resolution that predicts the four sub-pixels of every cell
(``PixelShuffle``). There are no feature maps at full resolution, where a usual decoder spends more
than half of its time: inference by MCMC differentiates the decoder in ``z`` at every step, and on
a CPU this order of layers costs half of the usual one. Inside, transposed convolutions need fewer
multiplications than a sub-pixel or nearest-neighbour convolution between the same maps. All maps
are stored channels last, which makes convolutions faster. There is no batch normalisation, because
the density of one row must not depend on the others.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from latent_ebm.networks.mlp import make_activation
from samplers.checks import check_counts

MAX_BASE = 8


def base_size(shape: Sequence[int]) -> tuple[int, int]:
    """Size ``s_0 <= 8`` and number of halvings ``k`` of images (C, H, W): 28 -> (7, 2), 32 -> (8,
    2), 64 -> (8, 3).
    """
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ValueError(f"shape must be (C, H, W) with H = W, got {tuple(shape)}")
    check_counts(
        "images", **dict(zip(("channels of shape", "height of shape"), shape[:2], strict=True))
    )
    size, halvings = shape[1], 0
    while size > MAX_BASE and size % 2 == 0:
        size, halvings = size // 2, halvings + 1
    if size > MAX_BASE:
        raise ValueError(
            f"shape must have H = W that halves down to {MAX_BASE} or less, got {tuple(shape)}"
        )
    return size, halvings


class ConvDecoder(Artefact):
    """Decoder ``(batch, dim) -> (batch, *shape)``.

    On images that are mostly background, the output "tanh" can saturate at -1 under a large
    learning rate and then learns no more (seen with squared error and Adam at 1e-3); "linear"
    cannot.

    Args:
        dim: The dimension of a latent.
        shape: The shape (C, H, W) of an image, with H = W = 8, 28, 32, 64 or any size that halves
            down to 8 or less.
        channels: Sets the width of all layers.
        activation: "gelu", "leaky_relu", "silu" or "tanh".
        output: "tanh" for images in [-1, 1], or "linear".
    """

    def __init__(
        self,
        dim: int,
        shape: Sequence[int],
        channels: int = 32,
        activation: str = "gelu",
        output: str = "tanh",
    ) -> None:
        super().__init__()
        check_counts(self, dim=dim, channels=channels)
        if output not in ("tanh", "linear"):
            raise ValueError(f"output must be tanh or linear, got {output!r}")
        size, halvings = base_size(shape)
        self.dim, self.shape, self.channels = dim, tuple(shape), channels
        self.activation, self.output = activation, output
        width = channels * 2**halvings
        layers = [
            nn.Linear(dim, size**2 * width),
            make_activation(activation),
            ToMaps(size, width),
        ]
        for _ in range(halvings - 1):
            layers += [nn.ConvTranspose2d(width, width // 2, 4, 2, 1), OnMaps(activation)]
            width //= 2
        factor = 2 if halvings else 1
        layers += [nn.Conv2d(width, shape[0] * factor**2, 3, padding=1), nn.PixelShuffle(factor)]
        self.blocks = nn.Sequential(*layers, nn.Tanh() if output == "tanh" else nn.Identity())

    def forward(self, z: Tensor) -> Tensor:
        """Images (batch, \\*shape) of ``z`` (batch, dim)."""
        return self.blocks(z).contiguous()


class ToMaps(nn.Module):
    """Rows (batch, size * size * channels) as maps (batch, channels, size, size) that lie in
    memory channels last.
    """

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.shape = (size, size, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, self.shape).permute(0, 3, 1, 2)


class OnMaps(nn.Module):
    """An activation of maps (batch, channels, H, W) that lie channels last, and are contiguous if
    seen so.
    """

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.activation = make_activation(activation)

    def forward(self, maps: Tensor) -> Tensor:
        return self.activation(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvEncoder(Artefact):
    """Encoder ``(batch, *shape) -> (batch, out_dim)``, the mirror of ``ConvDecoder``.

    Args:
        shape: The shape (C, H, W) of an image, as for the decoder.
        out_dim: The number of outputs: twice the latent dimension for a mean and a log-scale.
        channels: Sets the width of all layers.
        activation: "gelu", "leaky_relu", "silu" or "tanh".
    """

    def __init__(
        self, shape: Sequence[int], out_dim: int, channels: int = 32, activation: str = "gelu"
    ) -> None:
        super().__init__()
        check_counts(self, out_dim=out_dim, channels=channels)
        size, halvings = base_size(shape)
        self.shape, self.out_dim = tuple(shape), out_dim
        self.channels, self.activation = channels, activation
        factor, width = (2, 2 * channels) if halvings else (1, channels)
        layers = [nn.PixelUnshuffle(factor), nn.Conv2d(shape[0] * factor**2, width, 3, padding=1)]
        layers.append(make_activation(activation))
        for _ in range(halvings - 1):
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1), make_activation(activation)]
            width *= 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * size**2, out_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (batch, out_dim) of images ``x`` (batch, \\*shape)."""
        return self.layers(x)
