"""Watermarks: error rates as promised, strength as stated, and what they survive."""

import hashlib
import io
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom, kstest
from torch import Tensor
from torch.nn.functional import interpolate

from latent_ebm.data.shapes import draw_shapes
from latent_ebm.denoisers import GaussianMixtureDenoiser
from latent_ebm.guidance import inversion_path
from latent_ebm.responsibility import (
    detect_noise_watermark,
    detect_watermark,
    embed_watermark,
    read_tag,
    watermarked_noise,
    write_tagged,
)
from latent_ebm.responsibility.keys import signs
from samplers import DDIM, VPCosine
from tests.latent_ebm.drawing import NOISE, tiny_model

pytestmark = pytest.mark.cpu
KEY = b"a secret of tests"
LEVEL = 1e-3


def key_of(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


@cache
def pictures(side: int, num: int = 96) -> Tensor:
    """Drawn shapes on white, the hardest of hosts: sharp edges, and no room above 1."""
    return draw_shapes(side).on(torch.ones(3))[:: 192 // num]


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_false_positives_are_as_many_as_stated_whatever_the_picture() -> None:
    shapes = pictures(32, 12)
    hosts = torch.cat([shapes, torch.randn(12, 3, 32, 32, generator=stream())])
    p = np.stack([detect_watermark(hosts, key_of(i)).numpy() for i in range(1500)])
    for rows in (p[:, :12], p[:, 12:]):
        per_key = (rows <= LEVEL).mean(1)  # pictures of one key depend on each other
        error = max(per_key.std() / len(p) ** 0.5, (LEVEL / rows.size) ** 0.5)
        assert abs(per_key.mean() - LEVEL) < 3 * error
    for host in (0, 5, 17):
        assert kstest(p[:, host], "uniform").pvalue > 1e-3


@pytest.mark.parametrize("psnr", [30.0, 36.0, 45.0])
@pytest.mark.parametrize("size", [(32, 32), (33, 70)])
def test_strength_is_the_psnr_that_was_asked_for(psnr: float, size: tuple[int, int]) -> None:
    x = interpolate(pictures(48, 12), size).double()
    marked = embed_watermark(x, KEY, psnr)
    mse = (marked - x).square().mean((1, 2, 3))
    torch.testing.assert_close(10 * (4 / mse).log10(), torch.full((12,), psnr).double())
    assert marked.abs().max() <= 1
    assert marked.dtype == x.dtype
    assert embed_watermark(x.float(), KEY).dtype == torch.float32


def as_bytes(x: Tensor) -> Tensor:
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte()


def jpeg(quality: int, x: Tensor) -> Tensor:
    out = []
    for picture in as_bytes(x):
        file = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        out.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))
    return torch.stack(out) / 127.5 - 1


def resized(factor: float, x: Tensor) -> Tensor:
    size = [round(factor * side) for side in x.shape[-2:]]
    return interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)


def noisy(x: Tensor) -> Tensor:
    return (x + 0.1 * torch.randn(x.shape, generator=stream())).clamp(-1, 1)


ATTACKS: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    # least share of detections at 1e-3, of 32 and of 64 pixels a side
    "none": (lambda x: x, 0.95, 0.95),
    "8 bits": (lambda x: as_bytes(x) / 127.5 - 1, 0.95, 0.95),
    "noise": (noisy, 0.95, 0.95),
    "jpeg 90": (partial(jpeg, 90), 0.95, 0.95),
    "jpeg 75": (partial(jpeg, 75), 0.7, 0.95),
    "jpeg 50": (partial(jpeg, 50), 0.3, 0.9),
    "enlarged": (partial(resized, 1.5), 0.95, 0.95),
    "reduced": (lambda x: resized(1 / 0.75, resized(0.75, x)), 0.5, 0.9),
    "brightness": (lambda x: (0.7 * x + 0.2).clamp(-1, 1), 0.95, 0.95),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("side", [32, 64])
def test_what_the_pattern_survives(attack: str, side: int) -> None:
    change, *least = ATTACKS[attack]
    marked = embed_watermark(pictures(side), KEY)
    found = (detect_watermark(change(marked), KEY) <= LEVEL).double().mean()
    assert found >= least[side == 64]


@pytest.mark.parametrize("change", [lambda x: x.flip(-1), lambda x: x.roll(3, -1)])
def test_what_it_does_not_survive(change: Callable[[Tensor], Tensor]) -> None:
    marked = embed_watermark(pictures(64), KEY)
    assert (detect_watermark(change(marked), KEY) <= LEVEL).double().mean() < 0.3


def test_only_the_key_finds_it_and_single_colours_have_none() -> None:
    x = pictures(64)
    other = detect_watermark(embed_watermark(x, KEY), key_of(1))
    assert (other <= LEVEL).double().mean() < 0.05
    flat = torch.zeros(2, 1, 32, 40)
    assert (detect_watermark(flat, KEY) == 1).all()
    odd = torch.tensor([-0.7, 0.3, 0.1]).view(3, 1, 1, 1).expand(3, 3, 100, 33)
    assert (detect_watermark(odd, KEY) == 1).all()
    assert (detect_watermark(embed_watermark(flat, KEY, 50), KEY) < 1e-12).all()
    assert (detect_watermark(embed_watermark(flat + 1, KEY, 50), KEY) < 1e-6).all()


def test_keyed_noise_is_exactly_normal_over_keys() -> None:
    x_T = torch.cat([watermarked_noise(1, (4, 4), key_of(i), generator=stream(i))
                     for i in range(4000)])  # fmt: skip
    x = x_T.flatten(1).double()
    assert all(kstest(x[:, i].numpy(), "norm").pvalue > 1e-4 for i in range(16))
    moments = x.T @ x / len(x)  # entries of one row are independent
    assert ((moments - torch.eye(16)).abs() < 5 * (1 + torch.eye(16)) / len(x) ** 0.5).all()
    pattern = np.stack([signs(key_of(i), "noise", 16) for i in range(4000)])
    assert (np.abs(pattern.mean(0)) < 4.5 / 4000**0.5).all()
    assert len({row.tobytes() for row in pattern[:, :8]}) == 256  # no sign vector is left out


def test_p_values_of_noise_are_those_of_the_binomial_distribution() -> None:
    x_T = torch.randn(3, 5, 8, generator=stream())
    p = np.stack([detect_noise_watermark(x_T, key_of(i)).numpy() for i in range(4000)])
    for level in (0.01, 0.1, 0.5):
        exact = binom.sf(binom.isf(level, 40, 0.5), 40, 0.5)
        assert abs((p <= level).mean() - exact) < 4 * (exact / p.size) ** 0.5
    marked = watermarked_noise(2, (5, 8), KEY, generator=stream())
    assert detect_noise_watermark(marked, KEY).tolist() == pytest.approx([0.5**40] * 2)


def test_noise_is_found_by_inversion_after_the_picture_was_changed() -> None:
    schedule = VPCosine()
    means = pictures(16, 3).double()
    denoiser = GaussianMixtureDenoiser([1 / 3] * 3, means, [0.3] * 3, schedule)
    sampler = DDIM(schedule, 40, grid="log_snr")
    keyed = watermarked_noise(6, means.shape[1:], KEY, generator=stream())
    plain = torch.randn(6, *means.shape[1:], generator=stream())
    for x_T, found in ((keyed, True), (plain, False)):
        x = sampler.sample(denoiser, x_T.double())
        for changed in (x, jpeg(75, x).double(), (0.9 * x + 0.05)):
            p = detect_noise_watermark(inversion_path(denoiser, sampler, changed)[0], KEY)
            assert ((p <= LEVEL) == found).all()


@pytest.mark.parametrize("autoencoder", [False, True])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_a_text_to_image_model_draws_from_marked_noise(autoencoder: bool, guidance: float) -> None:
    """The mark is found without the prompt, and in no picture of other noise."""
    model = tiny_model(DDIM(NOISE, 20), autoencoder=autoencoder, guidance=guidance)
    for parameter in model.denoiser.parameters():
        parameter.data *= 0.3
    prompts, num = ["red", "blue strasse"], 4
    x_T = watermarked_noise(8, model.latent_shape, KEY, generator=stream())
    x_T = x_T * float(NOISE(torch.ones(()))[1])
    marked = model.generate(prompts, num, x_T=x_T)
    plain = model.generate(prompts, num, generator=stream(1))
    assert not torch.equal(marked[:num], marked[num:])  # prompts still decide
    for x, low, high in ((marked, 0, 1e-4), (plain, 1e-4, 1)):
        z = x if model.autoencoder is None else model.autoencoder.encode(x)
        denoise = partial(model.denoiser, **model.conditioner.unknown(8))
        with torch.no_grad():
            p = detect_noise_watermark(inversion_path(denoise, model.sampler, z)[0], KEY)
        assert bool(((p >= low) & (p <= high)).all()), p


def test_the_noise_that_is_given_is_the_noise_that_would_be_drawn() -> None:
    model = tiny_model(DDIM(NOISE, 3))
    noise = torch.randn(2, *model.latent_shape, generator=stream(4))
    x_T = noise * NOISE(torch.ones(()))[1]
    drawn = model.generate(["red", "green"], generator=stream(4))
    assert torch.equal(model.generate(["red", "green"], x_T=x_T), drawn)
    with pytest.raises(ValueError, match=r"x_T must be noise of shape \(2, 3, 8, 8\), got"):
        model.generate(["red"], 2, x_T=x_T[:1])


def test_tags_are_kept_by_the_file_and_lost_by_any_other_format(tmp_path: Path) -> None:
    x = pictures(16)[0]
    write_tagged(tmp_path / "x.png", x, "made by a model: größer")
    assert read_tag(tmp_path / "x.png") == "made by a model: größer"
    with Image.open(tmp_path / "x.png") as picture:
        assert (torch.from_numpy(np.array(picture)).permute(2, 0, 1) == as_bytes(x)).all()
        Image.fromarray(np.array(picture)).save(tmp_path / "again.png")
    assert read_tag(tmp_path / "again.png") is None
    write_tagged(tmp_path / "grey.png", x[:1], "grey")
    assert read_tag(tmp_path / "grey.png") == "grey"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: embed_watermark(torch.zeros(1, 3, 31, 32), KEY), "at least 32 pixels a side"),
        (lambda: embed_watermark(torch.zeros(3, 32, 32), KEY), r"pictures \(n, C, H, W\)"),
        (lambda: embed_watermark(torch.full((1, 1, 32, 32), 2.0), KEY), "x must lie in"),
        (lambda: embed_watermark(torch.zeros(1, 1, 32, 32), KEY, 70), "psnr must lie in 20 to 60"),
        (lambda: detect_watermark(torch.zeros(1, 1, 32, 32), b"short"), "16 bytes.*got 5 bytes"),
        (lambda: detect_watermark(torch.full((1, 1, 32, 32), torch.nan), KEY), "x must be finite"),
        (lambda: watermarked_noise(-1, (3,), KEY), "num must be an integer >= 0"),
        (lambda: watermarked_noise(1, (3,), "text of enough letters"), "got a str"),
        (lambda: detect_noise_watermark(torch.full((1, 2), torch.nan), KEY), "x_T must be finite"),
        (lambda: write_tagged("x.jpg", torch.zeros(3, 4, 4), "a"), r"path must end in .png"),
        (lambda: write_tagged("x.png", torch.zeros(2, 4, 4), "a"), "1 or 3 channels"),
        (lambda: write_tagged("x.png", torch.zeros(3, 4, 4), "a\0b"), "printable characters"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert not any(key in str(caught.value) for key in ("short", "enough letters"))
