"""A picture with a hole, a subject and a prompt in, the filled picture out; in files too."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from latent_ebm import load
from latent_ebm.applications import Inpainter
from latent_ebm.applications.trained import inpainter
from latent_ebm.autoencoders import ConvAutoencoder, LatentSpace
from latent_ebm.cli import main
from latent_ebm.conditions import Condition
from latent_ebm.denoisers import Preconditioned
from latent_ebm.guidance.attention_maps import record
from latent_ebm.guidance.inpainting import blank, guided_fill
from samplers.schedules import broadcast
from tests.latent_ebm.drawing import tiny_model
from tests.latent_ebm.pipelines import write_pipeline
from tests.latent_ebm.test_subject_inpainting import SCHEDULE, WORDS, draws, pca, rule

MASK = torch.zeros(2, 1, 8, 8)
MASK[:, :, 2:6, 4:8] = 1
IMAGE, REFERENCE = draws(2, 3, 8, 8), draws(2, 3, 8, 8, seed=1)
PROMPTS = ["a red dog", "a dog"]


def tiny(latents: LatentSpace | None = None) -> Inpainter:
    found = inpainter(rule(latents=latents).eval())
    assert found is not None
    return found


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("latent", [False, True])
def test_pictures_are_filled_as_by_the_rule(latent: bool) -> None:
    learner = rule(latents=pca() if latent else None).eval()
    model = inpainter(learner)
    assert model is not None
    found = model.generate(IMAGE, MASK, REFERENCE, PROMPTS, guidance=2.0, generator=seeded())
    assert found.shape == (2, 3, 8, 8)
    told = {"tokens": WORDS(PROMPTS), "image": IMAGE, "mask": MASK, "reference": REFERENCE}
    expected = learner.generate(2, Condition(told), guidance=2.0, generator=seeded())["x"]
    inside = expected.clamp(-1, 1) * MASK
    torch.testing.assert_close(found * MASK, inside, rtol=0, atol=0)
    assert torch.equal(found * (1 - MASK), IMAGE * (1 - MASK))


def test_masks_of_any_precision_fill_alike() -> None:
    def filled(mask: Tensor) -> Tensor:
        return tiny().generate(IMAGE, mask, REFERENCE, PROMPTS, generator=seeded())

    assert torch.equal(filled(MASK.double()), filled(MASK))


def test_maps_are_of_the_text_alone() -> None:
    model = tiny()
    with record(model.denoiser) as maps:
        model.generate(IMAGE, MASK, REFERENCE, PROMPTS, num_steps=2)
    tokens = WORDS(PROMPTS).shape[1]
    assert all([weights.shape[-1] for weights in calls] == [tokens] * 2 for calls in maps.values())


def test_a_shape_that_the_network_does_not_draw_is_refused() -> None:
    model = tiny()
    parts = model.conditioner, model.denoiser, model.sampler
    with pytest.raises(ValueError, match=r"which draws \(3, 8, 8\), got \(3, 16, 16\)"):
        Inpainter(*parts, (3, 16, 16))


def test_a_network_around_another_is_taken() -> None:
    """The inner one draws more channels than an image has."""
    model = tiny()
    outer = nn.Module()
    outer.inner = model.denoiser.network
    denoiser = Preconditioned(outer, model.denoiser.schedule)
    Inpainter(model.conditioner, denoiser, model.sampler, model.shape)


def test_every_image_has_its_own_pictures_in_a_row() -> None:
    model = tiny()
    both = model.generate(IMAGE, MASK, REFERENCE, PROMPTS, 3, generator=seeded())
    assert both.shape == (6, 3, 8, 8)
    assert torch.equal(both * (1 - MASK[0]), IMAGE.repeat_interleave(3, 0) * (1 - MASK[0]))
    one = model(IMAGE[0], MASK[0], REFERENCE[0], PROMPTS[0], 6, generator=seeded())
    torch.testing.assert_close(one[:3], both[:3])
    assert (one[3:] - both[3:]).abs().amax((1, 2, 3)).min() > 1e-3
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_all_that_is_asked_matters_and_the_hole_is_not_seen() -> None:
    model = tiny()
    images = IMAGE[0], MASK[0], REFERENCE[0]

    def ask(*pictures: Tensor | None, prompt: str = "a red dog", seed: int = 0, **more) -> Tensor:
        return model(*(pictures or images), prompt, generator=seeded(seed), **more) * MASK[0]  # pyright: ignore

    first = ask()
    assert torch.equal(ask(IMAGE[0] * (1 - MASK[0]), *images[1:]), first)
    others = [
        ask(prompt="blue"),
        ask(seed=1),
        ask(guidance=3.0),
        ask(num_steps=2),
        ask(IMAGE[1], *images[1:]),
        ask(*images[:2], REFERENCE[1]),
        ask(*images[:2], None),
    ]
    assert all((other - first).abs().max() > 1e-4 for other in others)


def test_what_is_known_is_put_back_at_every_step() -> None:
    model, seen = tiny(), list[tuple[Tensor, Tensor]]()
    model.denoiser.register_forward_hook(lambda _, args, out: seen.append(args[:2]))
    model.generate(IMAGE, MASK, REFERENCE, PROMPTS, 50, num_steps=4, generator=seeded())
    assert len(seen) == 4
    for x_t, t in seen[1:]:
        alpha, sigma = (broadcast(a, x_t) for a in SCHEDULE(t))
        noise = (x_t - alpha * IMAGE.repeat_interleave(50, 0)) / sigma
        known = noise.masked_select(MASK[:1] == 0)
        assert abs(known.mean()) < 0.05
        assert abs(known.std() - 1) < 0.05


def test_random_latents_follow_the_generator() -> None:
    torch.manual_seed(0)
    sizes = {"width": 8, "depth": 1, "decoder_width": 8, "decoder_depth": 1}
    latents = ConvAutoencoder(4, 2, random=True, **sizes)
    learner = rule(latents=latents).eval()
    model = inpainter(learner)
    assert model is not None
    told = {"tokens": WORDS(PROMPTS), "image": IMAGE, "mask": MASK, "reference": REFERENCE}
    for draw in (
        lambda: model.generate(IMAGE, MASK, REFERENCE, PROMPTS, generator=seeded()),
        lambda: learner.generate(2, Condition(told), generator=seeded())["x"],
    ):
        assert torch.equal(draw(), draw())


def test_a_folder_keeps_it_to_the_bit(tmp_path: Path) -> None:
    model = tiny(pca())
    model.save(tmp_path / "model")
    again = Inpainter.load(tmp_path / "model")
    assert type(load(tmp_path / "model")) is Inpainter
    x, y = (
        m.generate(IMAGE, MASK, REFERENCE, PROMPTS, generator=seeded()) for m in (model, again)
    )
    assert torch.equal(x, y)
    tiny_model().save(tmp_path / "other")
    with pytest.raises(ValueError, match="must hold an Inpainter, got a TextToImage"):
        Inpainter.load(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="folder must hold an Inpainter, but there is no"):
        Inpainter.load(tmp_path / "nothing")


WRONG = [
    ((IMAGE[:, :, :4], MASK, REFERENCE), r"image must be torch.float32 of shape \(2, 3, 8, 8\)"),
    ((IMAGE.double(), MASK, REFERENCE), "image must be torch.float32 of shape"),
    ((IMAGE[:1], MASK, REFERENCE), "one for every prompt"),
    ((IMAGE, MASK[:1], REFERENCE), "mask must have 2 rows, one for every image, got 1"),
    ((IMAGE, MASK[:, :, :4], REFERENCE), "mask must be a floating tensor of shape"),
    ((IMAGE, 0 * MASK, REFERENCE), "mask must be 1 somewhere in every row"),
    ((IMAGE, 0 * MASK + 1, REFERENCE), "mask must be 0 somewhere in every row"),
    ((IMAGE, MASK * 255, REFERENCE), "mask must hold 0 and 1 alone"),
    ((IMAGE, MASK, REFERENCE[:, :, :4]), "reference must be torch.float32 of the shape"),
    ((IMAGE, MASK, 0 * REFERENCE - 1), "reference must show a subject, got a picture of one"),
    ((IMAGE, None, REFERENCE), "mask must be a Tensor, got None"),
    ((IMAGE + 3, MASK, REFERENCE), r"image must lie in \[-1, 1\], got values from"),
    ((IMAGE, MASK, 255 * REFERENCE), r"reference must lie in \[-1, 1\], got values from"),
]


@pytest.mark.parametrize(("pictures", "message"), WRONG)
def test_wrong_pictures_are_refused(pictures: tuple, message: str) -> None:
    model = tiny()
    model.denoiser.forward = None  # nothing is computed
    with pytest.raises(ValueError, match=message):
        model.generate(*pictures, PROMPTS)


def test_wrong_requests_are_refused() -> None:
    model = tiny()
    with pytest.raises(ValueError, match="reference must be a Tensor, got 'rex"):
        model(IMAGE[0], MASK[0], "rex.png", PROMPTS[0])
    for more, message in (
        ({"num": 0}, "num must be an integer >= 1"),
        ({"guidance": float("nan")}, "weight must be finite"),
        ({"num_steps": 0}, "num_steps must be an integer >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate(IMAGE, MASK, REFERENCE, PROMPTS, **more)
    with pytest.raises(ValueError, match="prompts must be a list of one text or more"):
        model.generate(IMAGE, MASK, REFERENCE, "a dog")
    almost = torch.ones(2, 1, 8, 8)
    almost[:, :, 0, 0] = 0  # a pixel is known, but no place of the latents
    with pytest.raises(ValueError, match="mask must be 0 somewhere"):
        tiny(pca()).generate(IMAGE, almost, REFERENCE, PROMPTS)
    other = tiny_model()
    with pytest.raises(ValueError, match="denoiser must be a Denoiser"):
        Inpainter(model.conditioner, nn.Identity(), model.sampler, (3, 8, 8))  # pyright: ignore
    with pytest.raises(ValueError, match="sampler must have the schedule"):
        Inpainter(model.conditioner, model.denoiser, other.sampler, (3, 8, 8))
    plain = Inpainter(other.conditioner, other.denoiser, other.sampler, (3, 8, 8))  # pyright: ignore
    with pytest.raises(ValueError, match="reference must be left out for a network that knows no"):
        plain.generate(IMAGE, MASK, REFERENCE, ["red", "blue"])


# Pipelines of diffusers


def test_pictures_are_those_of_a_pipeline_of_diffusers(tmp_path: Path) -> None:
    """But for what is known, which the pipeline does not put back before its end."""
    write_pipeline(tmp_path, inpainting=True)
    from diffusers import StableDiffusionInpaintPipeline

    model = Inpainter.load(tmp_path)
    known = blank(IMAGE, MASK, model.autoencoder)
    text = model.conditioner.encode(["red circle", "blue"])
    guided, told = guided_fill(model.denoiser, text, model.guidance, known=known)
    noise = torch.randn(2, 4, 4, 4, generator=seeded())
    noise = broadcast(model.denoiser.schedule(torch.ones(()))[1], noise).float() * noise
    sampler = type(model.sampler)(model.denoiser.schedule, 5, grid=model.sampler.grid)
    found = sampler.sample(lambda x, t: guided(x, t, **told), noise)
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(tmp_path, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    scale = pipeline.vae.config.scaling_factor
    drawn = pipeline(
        ["red circle", "blue"],
        image=(IMAGE + 1) / 2,
        mask_image=MASK,
        masked_image_latents=known[:, :-1],
        latents=noise,
        height=8,
        width=8,
        num_inference_steps=5,
        output_type="latent",
    ).images
    assert scale != 1
    ours = found * model.autoencoder.deviation + model.autoencoder.mean  # pyright: ignore
    torch.testing.assert_close(ours * scale, drawn, rtol=0, atol=1e-4)
    x = model.generate(IMAGE, MASK, None, ["red", "blue"], 2, num_steps=3, generator=seeded())
    assert torch.equal(x * (1 - MASK[0]), IMAGE.repeat_interleave(2, 0) * (1 - MASK[0]))
    with pytest.raises(ValueError, match="such as a WithKnown"):
        model.generate(IMAGE, MASK, REFERENCE, ["red", "blue"])


def test_a_pipeline_for_text_alone_is_refused(tmp_path: Path) -> None:
    write_pipeline(tmp_path)
    with pytest.raises(ValueError, match="must be StableDiffusionInpaintPipeline, got 'StableDif"):
        Inpainter.load(tmp_path)


# The command


def write(path: str, pixels: np.ndarray) -> np.ndarray:
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return pixels


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The picture in image.png; mask.png and reference.png beside it."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    tiny().save("model")
    write("mask.png", MASK[0, 0].numpy() * 255)
    write("reference.png", random.integers(0, 256, (8, 8, 3)))
    return write("image.png", random.integers(0, 256, (8, 8, 3)))


ASK = ["--mask", "mask.png", "--reference", "reference.png", "--prompt", "a red dog"]


def test_the_command_fills_the_hole(files: np.ndarray) -> None:
    more = ["--image", "image.png", *ASK, "--num", "2", "--guidance", "2", "--steps", "2"]
    assert main(["inpaint", "model", *more, "--seed", "3", "--out", "x.png"]) == 0
    row = np.asarray(Image.open("x.png"))
    assert row.shape == (8, 16, 3)
    known = MASK[0, 0].numpy() == 0
    image = torch.from_numpy(files).permute(2, 0, 1).float() / 127.5 - 1
    with Image.open("reference.png") as opened:
        reference = (
            torch.from_numpy(np.asarray(opened).copy()).permute(2, 0, 1).float() / 127.5 - 1
        )
    expected = tiny()(image, MASK[0], reference, "a red dog", 2, 2.0, 2, generator=seeded(3))
    for i, picture in enumerate((row[:, :8], row[:, 8:])):
        assert (picture[known] == files[known]).all()
        pixels = ((expected[i] + 1) * 127.5).round().permute(1, 2, 0).numpy()
        assert np.array_equal(picture, pixels)


def test_the_command_says_what_it_did_to_pictures(
    files: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    write("cut.png", np.dstack([files, np.full((8, 8), 100)]))
    assert main(["inpaint", "model", "--image", "cut.png", *ASK, "--out", "x.png"]) == 0
    said = capsys.readouterr().out
    assert "--image: 1 of 1 images with transparency are put on white" in said
    assert "--reference" not in said


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_any_precision_keep_what_is_known(files: np.ndarray, dtype: torch.dtype) -> None:
    tiny().to(dtype).save("model")
    assert main(["inpaint", "model", "--image", "image.png", *ASK, "--out", "x.png"]) == 0
    known = MASK[0, 0].numpy() == 0
    assert (np.asarray(Image.open("x.png"))[known] == files[known]).all()


REFUSED = [
    (["--image", "small.png"], "--image must have 8 x 8 pixels (height x width)"),
    (["--mask", "small.png"], "--mask must have 8 x 8 pixels"),
    (["--reference", "small.png"], "--reference must have 8 x 8 pixels"),
    (["--mask", "grey.png"], "--mask must be black and white (white is the hole), got 64 grey"),
    (["--mask", "cut.png"], "cut.png must be a mask in black and white without transparency"),
    (["--mask", "black.png"], "mask must be 1 somewhere in every row"),
    (["--mask", "white.png"], "mask must be 0 somewhere in every row"),
    (["--reference", "grey.png"], "reference must show a subject"),
    (["--image", "nothing.png"], "nothing.png"),
    (["--prompt", "a " * 9], "must have at most 3 words, got 9"),
    (["--out", "none.npz"], "--out must end with .png"),
    (["--out", "image.png"], "must not be written to, for it is read"),
    (["--out", "model/config.png"], "must not be written to, for it is read"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_the_command_refuses(
    changes: list[str], words: str, files: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    write("small.png", files[:4])
    for name, grey in {"grey": 100, "black": 0, "white": 255}.items():
        write(f"{name}.png", np.full((8, 8), grey))
    write("cut.png", np.full((8, 8, 4), 255) * (np.arange(8) < 4)[:, None])
    Path("model/config.png").write_text("old")
    before = {path: path.read_bytes() for path in Path().rglob("*.*")}
    options = ["--image", "image.png", *ASK, "--out", "none.png", *changes]
    assert main(["inpaint", "model", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert {path: path.read_bytes() for path in Path().rglob("*.*")} == before


def test_other_models_are_refused(files: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model().save("drawer")
    options = ["--image", "image.png", *ASK, "--out", "none.png"]
    assert main(["inpaint", "drawer", *options]) == 1
    assert "drawer must hold an Inpainter, got a TextToImage" in capsys.readouterr().err
