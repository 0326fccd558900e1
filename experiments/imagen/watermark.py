"""What watermarks survive: rates of detection at a false-positive rate of one in a thousand."""

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from experiments.imagen.corpora import emoji
from experiments.text_to_image.students import GUIDANCE
from latent_ebm.data.base import make_generator
from latent_ebm.guidance import ClassifierFree, inversion_path
from latent_ebm.responsibility import (
    detect_noise_watermark,
    detect_watermark,
    embed_watermark,
    watermarked_noise,
)

ALARM, PSNR, NUM, KEYS = 1e-3, (36.0, 30.0), 100, 100
SIDES = (32, 64, 128)  # the last one twice as large as the source
NUM_DRAWN = 32
Change = Callable[[Tensor], Tensor]


def noisy(x: Tensor, deviation: float) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return (x + noise * deviation / 127.5).clamp(-1, 1)


def rounded(x: Tensor) -> np.ndarray:
    """Pictures (n, H, W, 3) of 8 bits."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def jpeg(x: Tensor, quality: int) -> Tensor:
    found = list[Tensor]()
    for row in rounded(x):
        file = io.BytesIO()
        Image.fromarray(row).save(file, "JPEG", quality=quality)
        found.append(torch.from_numpy(np.array(Image.open(file))))
    return torch.stack(found).permute(0, 3, 1, 2).float() / 127.5 - 1


def resized(x: Tensor, factor: float, back: bool = True) -> Tensor:
    side = round(factor * x.shape[-1])
    y = interpolate(x, (side, side), mode="bicubic", antialias=True)
    y = interpolate(y, x.shape[-2:], mode="bicubic", antialias=True) if back else y
    return y.clamp(-1, 1)


def brighter(x: Tensor, factor: float) -> Tensor:
    return ((x + 1) * factor - 1).clamp(-1, 1)


def cropped(x: Tensor, share: float) -> Tensor:
    """Without ``share`` of each side, at the old size."""
    side = x.shape[-1]
    cut = round(share * side)
    inner = x[..., cut : side - cut, cut : side - cut]
    return interpolate(inner, (side, side), mode="bicubic").clamp(-1, 1)


def turned(x: Tensor, degrees: float) -> Tensor:
    angle = torch.tensor(degrees).deg2rad()
    rows = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    theta = torch.cat([rows, torch.zeros(2, 1)], 1).expand(len(x), 2, 3)
    grid = affine_grid(theta, list(x.shape), align_corners=False)
    return grid_sample(x, grid, padding_mode="border", align_corners=False)


CHANGES: dict[str, Change] = {
    "nothing": lambda x: x,
    "noise of 5/255": partial(noisy, deviation=5),
    "noise of 15/255": partial(noisy, deviation=15),
    "JPEG 90": partial(jpeg, quality=90),
    "JPEG 75": partial(jpeg, quality=75),
    "JPEG 50": partial(jpeg, quality=50),
    "to 50 % and back": partial(resized, factor=0.5),
    "to 75 % and back": partial(resized, factor=0.75),
    "to 200 %": partial(resized, factor=2, back=False),
    "brightness 80 %": partial(brighter, factor=0.8),
    "brightness 120 %": partial(brighter, factor=1.2),
    "crop of 5 %": partial(cropped, share=0.05),
    "turn by 5 degrees": partial(turned, degrees=5),
    "mirror image": lambda x: x.flip(-1),
}


def secret(seed: int, number: int = 0) -> bytes:
    return f"key {number} of seed {seed}, for tests".encode()


def glyphs(seed: int, side: int) -> Tensor:
    """Pictures (n, 3, side, side), of 64 pixels at most before they are enlarged."""
    data = emoji(min(side, 64))
    x = data.glyphs.on(data.background)
    x = x[torch.randperm(len(x), generator=make_generator(seed, 8))[:NUM]]
    return resized(x, side / x.shape[-1], back=False) if side > x.shape[-1] else x


def in_pixels(seed: int) -> dict[str, Any]:
    """Shares that are found, by side, strength and change; and how many unmarked pictures every
    other key finds, by side and change.
    """
    found, alarms = dict[str, Any](), dict[str, Any]()
    for side in SIDES:
        x = glyphs(seed, side)
        for psnr in PSNR:
            marked = embed_watermark(x, secret(seed), psnr)
            for name, change in CHANGES.items():
                p = detect_watermark(change(marked), secret(seed))
                found[f"{side}, {psnr:g}, {name}"] = (p <= ALARM).double().mean().item()
        for name in ("nothing", "JPEG 50"):
            plain = CHANGES[name](x)
            hits = [
                int((detect_watermark(plain, secret(seed, k)) <= ALARM).sum())
                for k in range(1, KEYS + 1)
            ]
            alarms[f"{side}, {name}"] = hits
    return {"found": found, "alarms": alarms}


@torch.no_grad()
def in_noise(rule: Any, prompts: list[str], seed: int) -> dict[str, Any]:
    """Shares of a model's pictures in which the key of their noise is found by inversion without
    the prompt, by change; and in how many every other key is found.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = watermarked_noise(len(prompts), rule.shape, secret(seed), generator=generator)
    schedule = rule.denoiser.schedule
    told, null = rule.conditioner.encode(prompts), rule.conditioner.unknown(len(prompts))
    guided = ClassifierFree(rule.denoiser, GUIDANCE, rule.conditioner.unknown(1))
    x = rule.reverse.sample(partial(guided, **told), schedule(noise.new_ones(()))[1] * noise)
    found, alarms = dict[str, float](), list[int]()
    for name, change in CHANGES.items():
        if name == "to 200 %":
            continue  # the model has one size
        untold = partial(rule.denoiser, **null)
        back = inversion_path(untold, rule.reverse, change(x.clamp(-1, 1)))[0]
        found[name] = (detect_noise_watermark(back, secret(seed)) <= ALARM).double().mean().item()
        if name == "nothing":
            p = [detect_noise_watermark(back, secret(seed, k)) for k in range(1, KEYS + 1)]
            alarms = (torch.stack(p) <= ALARM).sum(1).tolist()
    return {"found": found, "alarms": {"32, nothing": alarms}}
