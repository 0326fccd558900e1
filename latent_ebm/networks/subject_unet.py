r"""A U-Net that fills the hole of a picture with a given subject: DreamInpainter (Xie et al. 2023,
arXiv:2312.03771).

The subject is shown by a reference picture. The way down of the same U-Net turns this into vectors
(equation 2 of the paper), of which a selection keeps a few, the *tokens* of the subject. Blocks on
the way up see them beside the text; blocks on the way down see the text alone.

Tokens have a cross-attention of their own, which is added to that of the text and has the same
projections. In one softmax over text and tokens, the tokens would take weight from the text even
if their vectors were zero, so that a trained text-to-image network could not be the start.

Tokens also tell where in the reference they were, and the vectors of maps that ask for them where
they are: learned vectors of every place are added to both. Attention itself knows no places, and
convolutions see them by the borders of their maps alone.
"""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from latent_ebm.artefacts import Artefact
from latent_ebm.artefacts.describing import arguments_of
from latent_ebm.networks.attention import Gated
from latent_ebm.networks.mobile_unet import MobileUNet
from latent_ebm.selection import TokenSelection
from samplers.checks import check_counts, check_kind, check_numbers


class SubjectUNet(Artefact):
    """Maps images (batch, C, H, W), a noise level, a text, a picture with a hole and the tokens of
    a subject to images like the first.

    The U-Net sees ``[x, hole, kept]`` in this order, 2 C + 1 channels, as the inpainting model of
    Stable Diffusion does: ``hole`` is 1 where the picture is to be filled and 0 where it is known,
    and ``kept`` is the picture with 0 in the hole, or the latents of that. Outside of the hole, x
    is replaced by ``kept``, so that what a sampler has there does not matter. The first C channels
    of the U-Net's output count.

    Args:
        unet: The U-Net, of a shape (2 C + 1, H, W), not ``guided``.
        selection: Which vectors of a reference picture are the tokens of its subject.
        level: The resolution whose map on the way down gives these vectors; 0 is the highest. The
            paper has the second, 1.
        clean_level: Noise level that the U-Net is told with a reference picture: that of data, ``-
            log_snr_max / 8`` of the schedule.

    Raises:
        ValueError: For a U-Net with an even number of channels, a guided one, or one without
            cross-attention anywhere; or if ``level`` is none of its resolutions.
    """

    def __init__(
        self,
        unet: MobileUNet,
        selection: TokenSelection,
        level: int = 1,
        clean_level: float = -1.25,
    ) -> None:
        super().__init__()
        check_kind(self, MobileUNet, unet=unet)
        check_kind(self, TokenSelection, selection=selection)
        check_numbers(self, "finite", clean_level=clean_level)
        check_counts(self, least=0, level=level)
        check_unet(unet, level)
        self.unet, self.selection, self.level, self.clean_level = (
            unet,
            selection,
            level,
            clean_level,
        )
        self.shape = (unet.shape[0] // 2, *unet.shape[1:])
        dim, num = unet.channels[level], prod(unet.sizes[level][1:])
        self.norm, self.project = nn.LayerNorm(dim), nn.Linear(dim, unet.text_dim)
        self.token_places = nn.Parameter(0.5 * torch.randn(num, dim))
        self.map_places = nn.ParameterList(
            0.5 * torch.randn(h * w, channels)
            for (channels, h, w), asks in zip(unet.sizes, asking(unet), strict=True)
            if asks
        )
        self.gate = nn.Parameter(torch.ones(()))

    @classmethod
    def from_text_to_image(
        cls,
        base: MobileUNet,
        selection: TokenSelection,
        level: int = 1,
        clean_level: float = -1.25,
    ) -> "SubjectUNet":
        """A network that starts from a copy of the weights of ``base``, a trained text-to-image
        network of images (C, H, W). Other arguments are those of the class.

        New channels have weights of zero, and tokens of a subject no effect until the network is
        trained: at first the output is that of ``base`` at x, or at the picture outside of the
        hole.
        """
        check_kind("from_text_to_image", MobileUNet, base=base)
        channels, *sides = base.shape
        shape = (2 * channels + 1, *sides)
        made = cls(
            MobileUNet(**{**arguments_of(base, ""), "shape": shape}), selection, level, clean_level
        )
        widen(made.unet, base)
        nn.init.zeros_(made.gate)
        return made.to(base.pooled.weight)

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        text: Tensor | None = None,
        mask: Tensor | None = None,
        known: Tensor | None = None,
        subject: Tensor | None = None,
    ) -> Tensor:
        """Images like ``x`` (batch, C, H, W).

        Args:
            x: Noised images (batch, C, H, W).
            noise_level: Noise level (batch,), as ``Preconditioned`` passes it.
            text: Tokens of a text (batch, m, text_dim); None for no text.
            mask: True for the tokens of the text that count (batch, m); None for all of them.
            known: The picture with 0 in the hole, or its latents, and the hole as the last
                channel, (batch, C + 1, H, W); None if nothing is known, and all is to be drawn.
            subject: Tokens of the subject (batch, K, D), of ``tokens``; None for no subject.

        Raises:
            ValueError: For images, a text or tokens of another shape.
        """
        held = self.hold(x, known)
        told = self.unet.tell(noise_level.to(x.dtype), text, mask, None)
        h, skips = self.unet.contract(held, told)
        if subject is not None:
            self.check_subject(subject, len(x))
            places = {len(place): place for place in self.map_places}
            told = told._replace(subject=Gated(self.project(subject), self.gate, places))
        return self.unet.expand(h, skips, told)[:, : x.shape[1]]

    def tokens(self, reference: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Tokens (batch, K, D) of the subject of each ``reference`` (batch, C, H, W), a picture
        without noise: normalised vectors, plus those of their places. A mean has no place.

        ``generator`` is the random stream of a selection that is random.
        """
        hole = reference.new_zeros(len(reference), 1, *reference.shape[2:])
        held = self.hold(reference, torch.cat([reference, hole], 1))
        level = reference.new_full((len(reference),), self.clean_level)
        features = self.unet.features(held, level, self.level).flatten(2).mT
        chosen, indices = self.selection(features, generator=generator)
        chosen = self.norm(chosen)
        return chosen + embedding(indices, self.token_places) if indices.numel() else chosen

    def hold(self, x: Tensor, known: Tensor | None) -> Tensor:
        """``[x, hole, kept]`` (batch, 2 C + 1, H, W), with x replaced outside of the hole."""
        if x.shape[1:] != self.shape:
            raise ValueError(f"x must have shape (batch, *{self.shape}), got {tuple(x.shape)}")
        if known is None:
            return torch.cat([x, torch.ones_like(x[:, :1]), torch.zeros_like(x)], 1)
        wanted = (len(x), self.shape[0] + 1, *self.shape[1:])
        if known.shape != wanted:
            raise ValueError(f"known must have shape {wanted}, got {tuple(known.shape)}")
        kept, hole = known.split([self.shape[0], 1], 1)
        return torch.cat([torch.where(hole > 0, x, kept), hole, kept], 1)

    def check_subject(self, subject: Tensor, num: int) -> None:
        """Raise ``ValueError`` unless ``subject`` are tokens of ``num`` rows."""
        dim = self.unet.channels[self.level]
        if subject.ndim != 3 or len(subject) != num or subject.shape[2] != dim:
            raise ValueError(
                f"subject must have shape ({num}, K, {dim}), got {tuple(subject.shape)}"
            )


def check_unet(unet: MobileUNet, level: int) -> None:
    """Raise ``ValueError`` unless ``unet`` can take a picture with a hole and tokens of a subject
    from resolution ``level``.
    """
    if unet.shape[0] % 2 == 0 or unet.shape[0] < 3:
        raise ValueError(
            "unet must have 2 C + 1 channels, for images of C channels, got the shape "
            f"{unet.shape}"
        )
    if unet.guided:
        raise ValueError("unet must not be guided, got a guided one")
    if level >= len(unet.channels):
        raise ValueError(f"level must be below {len(unet.channels)}, got {level}")
    if not any(asking(unet)):
        raise ValueError(
            "unet must have a transformer block with cross-attention, which sees the tokens, got "
            f"transformers {unet.transformers} and cross_attention {unet.cross_attention}"
        )


def asking(unet: MobileUNet) -> list[bool]:
    """Whether there is a transformer block with cross-attention, at each resolution."""
    pairs = zip(unet.transformers, unet.cross_attention, strict=True)
    return [bool(num and on) for num, on in pairs]


@torch.no_grad()
def widen(unet: MobileUNet, base: MobileUNet) -> None:
    """Give ``unet``, which has more channels of images than ``base``, the weights of ``base`` for
    the first of them, and zeros for the others.
    """
    values = base.state_dict()
    for name, weight in unet.state_dict().items():
        weight.zero_()[tuple(map(slice, values[name].shape))] = values[name]


def subject_network(network: nn.Module) -> SubjectUNet:
    """``network``. Raises ``ValueError`` unless it is a ``SubjectUNet``."""
    if not isinstance(network, SubjectUNet):
        raise ValueError(
            f"denoiser must have a SubjectUNet as its network, got a {type(network).__name__}"
        )
    return network
