r"""A small residual encoder of images, for features that are learnt without labels (He et al.
2015, arXiv:1512.03385).

Unlike the networks of densities it has batch normalisation, which makes training of such features
several times faster. In evaluation mode its statistics are constants, and the features of one
image do not depend on the others.
"""

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from latent_ebm.artefacts import Artefact
from samplers.checks import check_counts


def convolution(
    in_channels: int, channels: int, size: int, stride: int, padding: int
) -> nn.Sequential:
    """Convolution and batch normalisation."""
    conv = nn.Conv2d(in_channels, channels, size, stride, padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels))


class ResidualBlock(nn.Module):
    """``relu(skip(x) + conv(relu(conv(x))))``, (batch, in_channels, H, W) -> (batch, channels, H /
    stride, W / stride).
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        first, second = (
            convolution(in_channels, channels, 3, stride, 1),
            convolution(channels, channels, 3, 1, 1),
        )
        self.body = nn.Sequential(first, nn.ReLU(), second)
        same = in_channels == channels and stride == 1
        self.skip = nn.Identity() if same else convolution(in_channels, channels, 1, stride, 0)

    def forward(self, x: Tensor) -> Tensor:
        return (self.skip(x) + self.body(x)).relu()


class ResidualEncoder(Artefact):
    """Encoder ``(batch, in_channels, H, W) -> (batch, 4 channels)`` of images with sides of 8
    pixels or more.

    A convolution halves the size. Three residual blocks follow (``stages``), with ``channels``,
    twice and four times as many maps; each of the last two halves the size again. Then every map
    is averaged.

    Args:
        in_channels: The number of channels of an image.
        channels: The number of maps of the first block.
    """

    def __init__(self, in_channels: int = 3, channels: int = 32) -> None:
        super().__init__()
        check_counts(self, in_channels=in_channels, channels=channels)
        self.in_channels, self.channels = in_channels, channels
        self.stem = nn.Sequential(convolution(in_channels, channels, 4, 2, 1), nn.ReLU())
        widths = [
            (channels, channels, 1),
            (channels, 2 * channels, 2),
            (2 * channels, 4 * channels, 2),
        ]
        self.stages = nn.Sequential(*(ResidualBlock(*width) for width in widths))

    def forward(self, x: Tensor) -> Tensor:
        """Features (batch, 4 channels) of images ``x`` (batch, in_channels, H, W)."""
        return self.stages(self.stem(x)).mean((2, 3))


class PlacedEncoder(Artefact):
    """Encoder ``(batch, in_channels, H, W) -> (batch, out_dim)`` whose features keep positions in
    the image, for sides of 8 pixels or more.

    Three convolutions halve the size, their maps are averaged to 4 x 4 places, and two linear
    layers follow. This costs a third of ``ResidualEncoder``, and is better where position matters,
    as in images that are centred.

    Args:
        in_channels: The number of channels of an image.
        out_dim: The number of features.
        channels: The number of maps of the first convolution.
    """

    def __init__(self, in_channels: int, out_dim: int, channels: int = 16) -> None:
        super().__init__()
        check_counts(self, in_channels=in_channels, out_dim=out_dim, channels=channels)
        self.in_channels, self.out_dim, self.channels = in_channels, out_dim, channels
        widths, sizes = (in_channels, channels, 2 * channels, 4 * channels), (4, 4, 3)
        pairs = zip(widths[:-1], widths[1:], sizes, strict=True)
        self.maps = nn.Sequential(
            *(nn.Sequential(convolution(a, b, size, 2, 1), nn.ReLU()) for a, b, size in pairs)
        )
        hidden = nn.Sequential(
            nn.Linear(16 * widths[-1], 256, bias=False), nn.BatchNorm1d(256), nn.ReLU()
        )
        self.head = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(256, out_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Features (batch, out_dim) of images ``x`` (batch, in_channels, H, W)."""
        return self.head(adaptive_avg_pool2d(self.maps(x), 4))
