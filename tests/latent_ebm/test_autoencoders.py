"""Autoencoders: closed forms of patch PCA, its exact start of a convolutional one, and latents of
unit variance.
"""

import json
import math
import socket
import sys
from pathlib import Path

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from latent_ebm.autoencoders import (
    Autoencoder,
    ConvAutoencoder,
    PatchCritic,
    PatchPCA,
    load_autoencoder,
)
from latent_ebm.autoencoders.critic import perceptual_distance
from latent_ebm.networks.classifier import FeatureClassifier

WIDTHS = {"width": 8, "depth": 1, "decoder_width": 8, "decoder_depth": 1}


def images(num: int = 60, size: int = 8, channels: int = 3) -> Tensor:
    """Smooth random images (num, channels, size, size), of which every pixel has another mean."""
    torch.manual_seed(0)
    coarse = torch.randn(num, channels, size // 2, size // 2)
    smooth = nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear")
    return smooth + 0.1 * torch.randn_like(smooth) + torch.randn(channels, size, size)


def patches(x: Tensor, p: int) -> Tensor:
    """All patches (n, C p p) of images."""
    return rearrange(x, "b c (h p) (w q) -> (b h w) (c p q)", p=p, q=p)


@pytest.fixture
def x() -> Tensor:
    return images()


@pytest.fixture
def pca(x: Tensor) -> PatchPCA:
    return PatchPCA(channels=5, patch=4).fit(x)


def test_the_error_is_the_sum_of_the_discarded_eigenvalues(x: Tensor, pca: PatchPCA) -> None:
    eigenvalues = torch.linalg.eigvalsh(torch.cov(patches(x, 4).T.double(), correction=0))
    error = (pca(x) - x).square().sum() / (len(x) * 4)
    torch.testing.assert_close(error.double(), eigenvalues[:-5].sum(), rtol=1e-4, atol=0)
    torch.testing.assert_close(pca.eigenvalues.double(), eigenvalues.flip(0), rtol=1e-4, atol=1e-6)


def test_all_components_lose_nothing(x: Tensor) -> None:
    pca = PatchPCA(channels=48, patch=4).fit(x)
    torch.testing.assert_close(pca.decode(pca.encode(x)), x, rtol=1e-4, atol=1e-5)


def test_latents_are_uncorrelated_with_unit_variance(x: Tensor, pca: PatchPCA) -> None:
    z = pca.encode(x)
    assert z.shape == (60, *pca.latent_shape((3, 8, 8))) == (60, 5, 2, 2)
    rows = rearrange(z, "b c h w -> (b h w) c")
    torch.testing.assert_close(torch.cov(rows.T, correction=0), torch.eye(5), rtol=0, atol=1e-4)
    torch.testing.assert_close(rows.mean(0), torch.zeros(5), rtol=0, atol=1e-4)


def test_patches_are_seen_alone(x: Tensor, pca: PatchPCA) -> None:
    z = pca.encode(x)
    z[:, :, 0, 0] += 1
    changed = (pca.decode(z) - pca(x)).abs() > 1e-4
    assert bool(changed[:, :, :4, :4].any())
    assert not bool(changed[:, :, 4:].any() | changed[:, :, :, 4:].any())


def test_measured_statistics_are_those_of_the_closed_form(x: Tensor, pca: PatchPCA) -> None:
    expected = pca.deviation.clone()
    pca.standardise(x)
    torch.testing.assert_close(pca.deviation, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(pca.mean, torch.zeros(5, 1, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("random", [False, True])
def test_a_convolutional_one_starts_as_pca(x: Tensor, pca: PatchPCA, random: bool) -> None:
    torch.manual_seed(1)
    start = ConvAutoencoder(5, 4, **WIDTHS, random=random)
    nn.init.normal_(start.encoder.leave.weight)
    start.start(pca)
    torch.testing.assert_close(start(x), pca(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(start.maps(x).mean, pca.encode(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(start.decode(pca.encode(x)), pca(x), rtol=1e-4, atol=1e-5)


def test_it_starts_with_the_statistics_that_were_measured(x: Tensor, pca: PatchPCA) -> None:
    pca.standardise(2 * x[:20] + 0.3)
    start = ConvAutoencoder(5, 4, **WIDTHS).start(pca)
    torch.testing.assert_close(start.encode(x), pca.encode(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(start.decode(pca.encode(x)), pca(x), rtol=1e-4, atol=1e-4)
    again = pca.fit(x).encode(x).mean((0, 2, 3))
    torch.testing.assert_close(again, torch.zeros(5), rtol=0, atol=1e-4)


def test_random_latents_are_drawn_with_their_deviation(x: Tensor, pca: PatchPCA) -> None:
    random = ConvAutoencoder(5, 4, **WIDTHS, random=True).start(pca)
    copies = x[:1].repeat(2000, 1, 1, 1)
    z = random.encode(copies, generator=torch.Generator().manual_seed(0))
    assert z.detach().std(0).mean().item() == pytest.approx(math.exp(-3), rel=0.05)
    same = random.encode(copies, generator=torch.Generator().manual_seed(0))
    assert torch.equal(z, same)
    assert not torch.equal(z, random.encode(copies, generator=torch.Generator().manual_seed(1)))


def test_statistics_travel_with_the_weights(x: Tensor) -> None:
    torch.manual_seed(0)
    trained, other = (ConvAutoencoder(5, 4, **WIDTHS) for _ in range(2))
    trained.standardise(x)
    z = trained.encode(x)
    deviation, mean = torch.std_mean(z, (0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(deviation, torch.ones(5), rtol=0, atol=1e-5)
    other.load_state_dict(trained.state_dict())
    assert torch.equal(other.encode(x), z)
    torch.testing.assert_close(trained.decode(z), trained(x), rtol=1e-4, atol=1e-5)


def test_signs_of_components_do_not_depend_on_the_order_of_rows(x: Tensor, pca: PatchPCA) -> None:
    again = PatchPCA(5, 4).fit(x.flip(0))
    torch.testing.assert_close(again.components, pca.components, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PatchPCA(49, 4), "channels must be at most 48, got 49"),
        (lambda: PatchPCA(0, 4), "channels must be an integer >= 1, got 0"),
        (lambda: ConvAutoencoder(width=12), "width must be a multiple of 8, got 12"),
        (lambda: ConvAutoencoder(depth=0), "depth must be an integer >= 1, got 0"),
        (lambda: PatchPCA(5, 4).fit(images(size=6)), r"multiples of 4, got \(3, 6, 6\)"),
        (lambda: PatchPCA(5, 4)(images(channels=1)), r"must be \(3, H, W\)"),
        (lambda: PatchPCA(5, 4).encode(images(size=6)), "multiples of 4"),
        (lambda: PatchPCA(5, 4).fit(images()[:0]), r"\(n >= 1, C, H, W\)"),
        (lambda: PatchPCA(5, 4).fit(images().long()), "got torch.int64"),
        (lambda: PatchPCA(5, 4).fit(torch.ones(9, 3, 8, 8)), "vary in at least 5 directions"),
        (lambda: PatchPCA(5, 4).standardise(torch.ones(9, 3, 8, 8)), "but channel 0 is constant"),
        (
            lambda: ConvAutoencoder(4, 4, **WIDTHS).start(PatchPCA(5, 4)),
            "channels of pca must be 4, got 5",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_images_that_are_not_finite_are_refused(x: Tensor) -> None:
    x[3, 0, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="x must be finite: 1 of 60"):
        PatchPCA(5, 4).fit(x)


@pytest.mark.parametrize("kind", [PatchPCA, ConvAutoencoder])
def test_everything_runs_on_the_meta_device(kind: type[Autoencoder]) -> None:
    with torch.device("meta"):
        autoencoder, x = kind(), torch.randn(2, 3, 8, 8)
        assert autoencoder.decode(autoencoder.encode(x)).is_meta
        autoencoder.standardise(x)
        if isinstance(autoencoder, ConvAutoencoder):
            autoencoder.start(PatchPCA().fit(x))


@pytest.mark.parametrize(("depth", "width"), [(1, 8), (2, 18), (3, 38)])
def test_a_patch_critic_sees_patches(depth: int, width: int) -> None:
    """Without its norms, which look at the whole picture."""
    torch.manual_seed(0)
    convolutions = [m for m in PatchCritic(3, 8, depth).layers if not isinstance(m, nn.GroupNorm)]
    x = images(size=64)[:1].requires_grad_()
    logits = nn.Sequential(*convolutions)(x)
    middle = logits.shape[2] // 2
    assert logits.shape == (1, 1, 64 // 2**depth, 64 // 2**depth)
    logits[0, 0, middle, middle].backward()
    assert x.grad is not None
    for axes in ((0, 1), (0, 2)):
        assert int(x.grad[0].abs().sum(axes).count_nonzero()) == width


def test_perceptual_distance_is_zero_for_the_same_image_alone(x: Tensor) -> None:
    network = FeatureClassifier((3, 8, 8), 2, 4).requires_grad_(False)
    assert float(perceptual_distance(network, x, x)) == 0
    near, far = (perceptual_distance(network, x, x + s * torch.randn_like(x)) for s in (0.1, 1.0))
    assert 0 < float(near) < float(far)


# Autoencoders of diffusers

KL = {
    "block_out_channels": (4, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 2,
    "latent_channels": 2,
    "scaling_factor": 0.5,
    "shift_factor": 0.25,
}
TINY = {
    "encoder_block_out_channels": (4, 4),
    "decoder_block_out_channels": (4, 4),
    "num_encoder_blocks": (1, 1),
    "num_decoder_blocks": (1, 1),
}


@pytest.fixture
def diffusers(monkeypatch: pytest.MonkeyPatch):
    module = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")

    def refuse(*args: object) -> None:
        raise AssertionError(f"{args[1:]} was to be reached")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return module


@pytest.mark.parametrize(("kind", "config"), [("AutoencoderKL", KL), ("AutoencoderTiny", TINY)])
def test_autoencoders_of_diffusers_are_loaded(diffusers, tmp_path, kind, config, x) -> None:
    torch.manual_seed(0)
    model = getattr(diffusers, kind)(**config).eval()
    model.save_pretrained(tmp_path / "vae")
    loaded, x = load_autoencoder(tmp_path), x[:2]
    assert loaded.latent_shape((3, 8, 8)) == (config.get("latent_channels", 4), 4, 4)
    raw = (
        model.encode(x).latents if kind == "AutoencoderTiny" else model.encode(x).latent_dist.mean
    )
    torch.testing.assert_close(loaded.maps(x).mean, raw)
    torch.testing.assert_close(loaded(x), model.decode(raw).sample)
    scale, shift = config.get("scaling_factor", 1.0), config.get("shift_factor", 0.0)
    z = loaded.encode(x, generator=torch.Generator().manual_seed(0))
    assert z.shape == (2, *loaded.latent_shape((3, 8, 8)))
    torch.testing.assert_close(loaded.decode((raw - shift) * scale), loaded(x))
    assert not any(p.requires_grad for p in loaded.parameters())
    loaded.standardise(x)
    mean = ((raw - loaded.mean) / loaded.deviation).mean((0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-4)


def test_statistics_of_single_channels_are_read(diffusers, tmp_path: Path, x: Tensor) -> None:
    own = {"latents_mean": [-1.5, 2.0], "latents_std": [4.0, 0.5], "shift_factor": None}
    model = diffusers.AutoencoderKL(**(KL | own)).eval()
    model.save_pretrained(tmp_path / "vae")
    loaded, raw = load_autoencoder(tmp_path), model.encode(x[:2]).latent_dist.mean
    mean, std = (
        torch.tensor(own[name])[:, None, None] for name in ("latents_mean", "latents_std")
    )
    torch.testing.assert_close(loaded.decode((raw - mean) * 0.5 / std), model.decode(raw).sample)


def test_other_models_are_refused(diffusers, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_autoencoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(ValueError, match="one of AutoencoderKL, AutoencoderTiny, got 'UNet2DMo"):
        load_autoencoder(tmp_path)
    diffusers.AutoencoderTiny(**TINY).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "latent_channels": 5}))
    with pytest.raises(ValueError, match="must hold a model of diffusers"):
        load_autoencoder(tmp_path)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"pip install 'latent-ebm\[diffusers\]'"):
        load_autoencoder(tmp_path)


NAN = float("nan")
WRONG = {
    "no tensor": (lambda a: a.encode("x"), "x must be a Tensor"),
    "bytes": (lambda a: a.encode(torch.zeros(1, 3, 8, 8).byte()), "x must be floating-point"),
    "channels": (lambda a: a.decode(torch.zeros(1, 3, 4, 4)), r"z must be .* \(batch, 4, h, w\)"),
    "one latent": (lambda a: a.decode(torch.zeros(4, 4, 4)), "z must be"),
    "a number": (lambda a: a.latent_shape(8), "shape must be"),
    "nan": (
        lambda a: a.set_statistics(torch.zeros(4), torch.full((4,), NAN)),
        "deviation must be",
    ),
    "sign": (lambda a: a.set_statistics(torch.zeros(4), -torch.ones(4)), "must not be negative"),
    "size": (lambda a: a.set_statistics(torch.zeros(1), torch.ones(1)), r"shape \(4,\), got \(1,"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_images_latents_and_statistics_are_refused(name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call(PatchPCA(channels=4, patch=2))


def test_an_encoder_of_another_kind_is_not_taken() -> None:
    small = {"channels": 4, "patch": 2, "width": 8, "depth": 1}
    plain, drawn = ConvAutoencoder(**small), ConvAutoencoder(**small, random=True)
    for one, other in ((plain, drawn), (drawn, plain)):
        with pytest.raises(ValueError, match="random of trained must be"):
            one.take_encoder(other)
    with pytest.raises(ValueError, match="trained must be a ConvAutoencoder"):
        plain.take_encoder(PatchPCA(channels=4, patch=2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="pca must be a PatchPCA"):
        plain.start(drawn)  # pyright: ignore[reportArgumentType]
