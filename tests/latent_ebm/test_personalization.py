"""A subject is learned from images, kept in a file, and drawn by the model that it belongs to."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from latent_ebm import load
from latent_ebm.applications import Subject, TextToImage
from latent_ebm.applications.personalization import KEY, model_digest
from latent_ebm.applications.tuning import tune
from latent_ebm.autoencoders import PatchPCA
from latent_ebm.denoisers import Preconditioned
from latent_ebm.text import TextConditioner, TextTransformer, WordTokenizer
from samplers import DDIM, VPCosine
from tests.latent_ebm.pipelines import LENGTH, write_pipeline

SCHEDULE = VPCosine(-4.0, 6.0)
WORDS = WordTokenizer(["a", "dog", "photo", "of"], max_words=6)
COLOUR = torch.tensor([0.5, -0.7, 0.2])


class Painter(nn.Module):
    """Paints all pixels in the colour that the last row of the text begins with."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.seen = nn.Parameter(torch.ones(())), []

    def forward(self, x: Tensor, level: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        self.seen.append((level, text.detach()))
        return self.scale * text[:, -1, :3, None, None].expand_as(x)


def painter(seed: int = 0, **changes: Any) -> TextToImage:
    torch.manual_seed(seed)
    texts = TextConditioner(TextTransformer(WORDS, dim=8, show_padding=True))
    parts: dict[str, Any] = {
        "conditioner": texts,
        "denoiser": Preconditioned(Painter(), SCHEDULE, "x"),
        "sampler": DDIM(SCHEDULE, 3, grid="log_snr"),
        "shape": (3, 4, 4),
    }
    return TextToImage(**{**parts, **changes}).eval()


def pictures(num: int = 2) -> tuple[Tensor, Tensor]:
    """Pictures of the colour on the left half, another thing on the right, and their masks."""
    x, mask = torch.rand(num, 3, 4, 4), torch.zeros(num, 1, 4, 4)
    x[..., :2], mask[..., :2] = COLOUR[:, None, None], 1
    return x, mask


def learned(model: TextToImage, **changes: Any) -> Subject:
    options = {"num_rows": 2, "num_shared": 150, "num_refining": 4, "lr": 0.03} | changes
    torch.manual_seed(1)
    return tune(model, *pictures()[:1], "dog", pictures()[1], regularization=0.0, **options)


def draw(model: TextToImage, **options: Any) -> Tensor:
    return model.generate(["a dog"], 2, generator=torch.Generator().manual_seed(0), **options)


@pytest.mark.parametrize("num_refining", [0, 4])
def test_the_subject_is_drawn_and_its_surroundings_are_not(num_refining: int) -> None:
    model = painter()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    subject = learned(model, num_refining=num_refining)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    x = draw(model, subject=subject)
    torch.testing.assert_close(x.mean((0, 2, 3)), COLOUR, atol=0.05, rtol=0)
    assert (draw(model).mean((0, 2, 3)) - COLOUR).abs().max() > 0.3


def test_guidance_leads_from_the_null_without_the_subject() -> None:
    model = painter()
    subject = learned(model)
    x, null = draw(model, subject=subject, guidance=1.5), model.conditioner.unknown(1)
    untold = null["text"][0, -1, :3]
    expected = (untold + 1.5 * (COLOUR - untold)).clamp(-1, 1)
    torch.testing.assert_close(x.mean((0, 2, 3)), expected, atol=0.08, rtol=0)
    x = draw(model, subject=subject, guidance=1.5, negative="photo")
    untold = model.conditioner.encode(["photo"])["text"][0, -1, :3]
    expected = (untold + 1.5 * (COLOUR - untold)).clamp(-1, 1)
    torch.testing.assert_close(x.mean((0, 2, 3)), expected, atol=0.08, rtol=0)


def test_every_step_sees_its_own_rows() -> None:
    model = painter()
    times = model.sampler.times(torch.zeros(1))[:-1]
    rows = torch.randn(3, 2, 8)
    subject = Subject(rows, "dog", model_digest(model.conditioner, model.denoiser), times)
    painted = model.denoiser.network
    assert isinstance(painted, Painter)
    model.generate(["a dog", "dog"], subject=subject)
    assert len(painted.seen) == 3
    plain = model.conditioner.encode(["a dog", "dog"])["text"]
    for (_, text), own in zip(painted.seen, rows, strict=True):
        assert torch.equal(text[:, -2:], own.expand(2, 2, 8))
        assert torch.equal(text[:, :-2], plain[:, :-2])


def test_equal_rows_of_steps_are_shared_rows() -> None:
    model = painter()
    shared = learned(model, num_refining=0)
    times = model.sampler.times(torch.zeros(1))[:-1]
    steps = Subject(shared.rows.expand(3, 2, 8), "dog", shared.model, times)
    for guidance in (1.0, 1.5):
        drawn = [draw(model, subject=s, guidance=guidance) for s in (shared, steps)]
        assert torch.equal(*drawn)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rows_of_a_model_in_half_precision_are_learned_in_single(dtype: torch.dtype) -> None:
    """A step of .005 does not change a number above 2 in bfloat16, and Adam divides by zero in
    float16.
    """
    model = painter()
    with torch.no_grad():
        for module in model.conditioner.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.mul_(8)  # rows begin at large numbers
    x, mask = pictures()
    subject = tune(
        model.to(dtype), x.to(dtype), "dog", mask, num_rows=2, num_shared=30, num_refining=0
    )
    start = model.conditioner.unknown(1)["text"][0, -2:].float()
    assert subject.rows.dtype == torch.float32
    moved = (subject.rows - start)[-1, :3].abs()
    assert moved.min() > 0.02
    assert draw(model, subject=subject).dtype == dtype


def test_nothing_else_is_changed() -> None:
    """The gradients of the model and of images, whether gradients are recorded, and the log."""
    model, (x, mask), logger = painter(), pictures(), logging.getLogger("lightning.pytorch")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    x = x.requires_grad_().tanh()  # no leaf
    level = logger.level
    with torch.no_grad():
        tune(model, x, "dog", mask.requires_grad_(), num_rows=2, num_shared=3, num_refining=1)
        assert not torch.is_grad_enabled()
    assert logger.level == level
    assert mask.grad is None
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert bool((parameter.grad == 1).all())


def test_equal_subjects_are_equal_files(tmp_path: Path) -> None:
    subject = Subject(torch.ones(2, 8), "dog", "0" * 16)
    files = [tmp_path / name for name in "abcdefghi"]
    for file in files:
        subject.save(file)
    assert len({file.read_bytes() for file in files}) == 1


def test_latents_are_tuned_too() -> None:
    pca = PatchPCA(channels=3, patch=2).fit(torch.rand(20, 3, 4, 4) * 2 - 1)
    model = painter(autoencoder=pca)
    subject = learned(model, num_refining=0)
    z = pca.encode(pictures(1)[0])[0, :, :, 0].mean(1)
    torch.testing.assert_close(subject.rows[-1, :3], z, atol=0.05, rtol=0)


@pytest.mark.parametrize("num_refining", [0, 1])
def test_a_file_keeps_it_to_the_bit(num_refining: int, tmp_path: Path) -> None:
    model = painter()
    subject = learned(model, num_shared=2, num_refining=num_refining)
    subject.save(tmp_path / "rex.safetensors")
    again = Subject.load(tmp_path / "rex.safetensors")
    assert (again.word, again.model) == ("dog", subject.model)
    assert torch.equal(again.rows, subject.rows)
    assert torch.equal(draw(model, subject=again), draw(model, subject=subject))
    assert (tmp_path / "rex.safetensors").stat().st_size < 1000
    with safe_open(tmp_path / "rex.safetensors", "pt") as file:
        assert set(file.metadata()) == {"format", "class", "model", "times"}
    model.save(tmp_path / "model")
    kept = load(tmp_path / "model", [Painter])
    assert torch.equal(draw(kept, subject=again), draw(model, subject=subject))


def test_a_full_disk_is_said_in_a_sentence(tmp_path: Path) -> None:
    """And nothing is left behind."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match=r"rex\.safetensors"):
            Subject(torch.ones(9, 8), "dog", "0").save(tmp_path / "rex.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_subject_belongs_to_one_model() -> None:
    model, other = painter(), painter(seed=1)
    subject = learned(model, num_shared=1, num_refining=0)
    with pytest.raises(ValueError, match="subject must belong to the model that draws it"):
        draw(other, subject=subject)
    for parameter in model.denoiser.parameters():
        parameter.data.mul_(1.01)
    with pytest.raises(ValueError, match="tuned on another model, of digest"):
        draw(model, subject=subject)
    wide = painter(conditioner=TextConditioner(TextTransformer(WORDS, dim=12, show_padding=True)))
    with pytest.raises(ValueError, match=r"of dimension 12, .* got 8: it was tuned on another"):
        draw(wide, subject=subject)


def test_a_prompt_without_room_is_refused() -> None:
    model = painter()
    subject = learned(model, num_shared=1, num_refining=0)
    with pytest.raises(ValueError, match=r"prompts\[1\] must leave 2 of its 7 tokens .* got 1 to"):
        model.generate(["dog", "a photo of a dog"], subject=subject)


def written(path: Path, rows: Tensor, key: str = KEY, **changes: str) -> None:
    told = {"format": "latent_ebm subject 1", "class": "dog", "model": "0", "times": "null"}
    save_file({key: rows}, path, told | changes)


FILES: list[tuple[Callable[[Path], object], str]] = [
    (lambda p: p.write_bytes(b"nothing"), "must hold a subject that latent-ebm tune wrote"),
    (lambda p: written(p, torch.ones(2, 8), "<cat-toy>"), "<cat-toy> of another format"),
    (lambda p: written(p, torch.ones(2, 8), format="2"), "of another format"),
    (lambda p: written(p, torch.ones(8)), r"of shape \(n, dim\) or"),
    (lambda p: written(p, torch.ones(2, 8).long()), "rows of a subject must be floating"),
    (lambda p: written(p, torch.full((2, 8), float("nan"))), "must hold numbers, got NaN"),
    (lambda p: written(p, torch.full((2, 8), float("inf"))), "must be finite"),
    (lambda p: written(p, torch.ones(0, 8)), "at least one"),
    (lambda p: written(p, torch.ones(3, 2, 8)), r"times of a subject must have shape \(3,\)"),
    *(
        (lambda p, t=t: written(p, torch.ones(2, 3, 8), times=t), r"must fall and lie in \[0, 1\]")
        for t in ("[NaN, 0.5]", "[1e400, 0]", "[-5, -7]", "[0.5, 1]", "[1, 1]")
    ),
    (lambda p: written(p, torch.ones(2, 8), times="[1"), "must hold a subject"),
]


@pytest.mark.parametrize(("write", "words"), FILES)
def test_other_files_are_refused(
    write: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "subject.safetensors"
    write(path)
    with pytest.raises(ValueError, match=words) as found:
        Subject.load(path)
    assert str(path) in str(found.value)
    with pytest.raises(FileNotFoundError, match="a subject that latent-ebm tune wrote"):
        Subject.load(tmp_path / "none.safetensors")


def images(**changes: Any) -> dict[str, Any]:
    x, masks = pictures()
    return {"images": x, "word": "dog", "masks": masks, "num_rows": 2, "num_shared": 1} | changes


WRONG = [
    (images(images=torch.zeros(2, 3, 5, 4)), r"images must be .* of shape \(n, 3, 4, 4\)"),
    (images(images=torch.zeros(0, 3, 4, 4)), "and be at least one"),
    (images(images=torch.full((2, 3, 4, 4), 2.0)), r"images must lie in \[-1, 1\]"),
    (images(masks=torch.ones(1, 1, 4, 4)), "masks must be one per image, got 1 of 2"),
    (images(masks=torch.ones(2, 1, 8, 8)), "mask must be a floating tensor of shape"),
    (images(masks=torch.zeros(2, 1, 4, 4)), "mask must be 1 somewhere in every row"),
    (images(masks=torch.ones(2, 1, 4, 4)), "mask must be 0 somewhere in every row"),
    (images(masks=torch.full((2, 1, 4, 4), 0.5)), "mask must hold 0 and 1 alone"),
    (images(word=" "), "word must say the class of the subject"),
    (images(word="zebra"), "prompts must consist of known words, got 'zebra'"),
    (images(templates=("a photo",)), "templates must have {} in place of the word"),
    (images(templates=()), "templates must be a list of one text or more"),
    (images(templates=("a photo of a {}",)), "must leave 2 of its 7 tokens to the subject"),
    (images(templates="a {}"), "templates must be a list of one text or more, got 'a {}'"),
    (images(templates=[3]), r"templates\[0\] must be a str, got 3"),
    (images(images=torch.zeros(2, 3, 4, 4).double()), "images must be torch.float32 of shape"),
    (images(num_rows=6), "num_rows must be at most 5"),
    (images(lr=0.0), "lr must be finite and positive"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_what_cannot_be_tuned_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tune(painter(), **arguments)


def test_one_image_without_a_mask_is_enough() -> None:
    subject = tune(painter(), torch.zeros(1, 3, 4, 4), "dog", num_rows=1, num_shared=2)
    assert subject.rows.shape == (3, 1, 8)


def test_diffusers_reads_the_file(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="not installed: diffusers")
    write_pipeline(tmp_path / "pipeline")
    model = TextToImage.load(tmp_path / "pipeline")
    assert LENGTH == 8
    x = torch.rand(2, *model.shape) * 2 - 1
    subject = tune(model, x, "circle", num_rows=3, num_shared=4, num_refining=0)
    before = draw_circle(model)
    assert not torch.equal(draw_circle(model, subject=subject), before)
    subject.save(tmp_path / "subject.safetensors")
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    pipeline.load_textual_inversion(str(tmp_path / "subject.safetensors"))
    ids = pipeline.tokenizer.convert_tokens_to_ids([KEY, f"{KEY}_1", f"{KEY}_2"])
    table = pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[ids], subject.rows)


def draw_circle(model: TextToImage, **options: Any) -> Tensor:
    return model.generate(
        ["red circle"], num_steps=2, generator=torch.Generator().manual_seed(0), **options
    )
