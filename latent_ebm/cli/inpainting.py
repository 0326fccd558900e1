"""Pictures whose hole is filled by a saved inpainter, or by the checkpoint of one."""

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from latent_ebm.cli.applications import read_inpainter
from latent_ebm.cli.checkpoints import applied
from latent_ebm.cli.files import check_apart, check_output
from latent_ebm.denoisers.generation import like
from latent_ebm.files.images import decode, image_notes, read_header
from latent_ebm.files.masks import check_opaque
from latent_ebm.writing import atomic_path


def inpaint(
    source: str,
    file: str,
    image: str,
    mask: str,
    reference: str | None,
    prompt: str,
    num: int,
    *,
    steps: int | None,
    guidance: float | None,
    seed: int,
    trust: Sequence[str],
) -> None:
    """Write ``num`` ways to fill the hole of a picture to ``file``, .png, side by side.

    Args:
        source: A checkpoint, or a folder that ``save`` wrote.
        file: The file to write.
        image: The file of the picture.
        mask: The file of the mask, white in the hole and black elsewhere.
        reference: The file of a picture of the subject.
        prompt: What to draw.
        num: Number of pictures.
        steps: Number of steps of the sampler; None: that of the model.
        guidance: Weight of guidance; None: that of the model.
        seed: Seed of the noise.
        trust: Packages whose classes a checkpoint may use.

    Raises:
        ValueError: If ``source`` holds no inpainter, a picture has another size than the model
            draws, or a mask is not black and white.
    """
    out = check_output(file, (".png",))
    read = [path for path in (image, mask, reference) if path is not None]
    check_apart([out], read)
    model = read_inpainter(source, out, trust)
    colour, size = model.shape[0] == 3, model.shape[1:]
    picture, hole = read_picture("--image", image, colour, size), read_mask(mask, size)
    seen = None if reference is None else read_picture("--reference", reference, colour, size)
    generator = torch.Generator().manual_seed(seed)
    dtype = like(model.denoiser).dtype
    given = picture.to(dtype), hole, None if seen is None else seen.to(dtype)
    with applied(source):
        x = model(*given, prompt, num, guidance, steps, generator=generator)
    save_row(torch.where(hole > 0, x.to(picture), picture), out)
    print(f"{num} of {prompt!r}: {out}")


def read_picture(option: str, path: str, colour: bool, size: Sequence[int]) -> Tensor:
    """The picture (C, H, W) in [-1, 1] in the file ``path``, grey or with ``colour``. Raises
    ``ValueError`` unless it has the ``size`` (H, W).
    """
    header = read_header(Path(path), path)
    if (header.height, header.width) != tuple(size):
        raise ValueError(
            f"{option} must have {size[0]} x {size[1]} pixels (height x width), as the model "
            f"draws them, got {header.height} x {header.width} of {path}"
        )
    for note in image_notes([header], colour, None):
        print(f"{option}: {note}")
    pixels = decode([Path(path)], [header], colour, None)
    return torch.from_numpy(pixels)[0].float() / 127.5 - 1


def read_mask(path: str, size: Sequence[int]) -> Tensor:
    """The mask (1, H, W) in the file ``path``: 1 where it is white, 0 where it is black."""
    grey = read_picture("--mask", path, False, size)
    check_opaque(Path(path))
    between = int((grey.abs() < 1).sum())
    if between:
        raise ValueError(
            f"--mask must be black and white (white is the hole), got {between} grey pixels of "
            f"{grey.numel()} in {path}"
        )
    return (grey > 0).float()


def save_row(x: Tensor, out: Path) -> None:
    """Write images ``x`` (n, C, H, W) in [-1, 1] side by side, pixel by pixel, as PNG."""
    from PIL import Image

    pixels = ((x + 1) * 127.5).round().to(torch.uint8)
    row = rearrange(pixels, "n c h w -> h (n w) c").numpy()
    with atomic_path(out) as path:
        Image.fromarray(row.squeeze(2) if row.shape[2] == 1 else row).save(path, format="PNG")
