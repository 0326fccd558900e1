"""Prompts in, images out: what is asked is what the denoiser is told, and a folder keeps it."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latent_ebm import load
from latent_ebm.applications import TextToImage
from latent_ebm.artefacts import Artefact
from latent_ebm.artefacts.folders import fingerprint
from latent_ebm.autoencoders import PatchPCA
from latent_ebm.denoisers import Denoiser, Preconditioned
from latent_ebm.networks import MobileUNet
from latent_ebm.text import TextConditioner, TextTransformer, WordTokenizer
from samplers import DDIM, VPCosine

SCHEDULE = VPCosine()
WORDS = WordTokenizer(["red", "green", "blue"], max_words=3)


class Exact(Denoiser):
    """The exact denoiser of one image per prompt: the mean of the text's vectors, whatever x_t."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = SCHEDULE

    def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        text, mask = condition["text"], condition["mask"]
        mean = (text * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        return mean.view_as(x_t).clone()


def conditioner(dim: int) -> TextConditioner:
    torch.manual_seed(0)
    return TextConditioner(TextTransformer(WORDS, dim=dim).requires_grad_(False))


def exact() -> TextToImage:
    return TextToImage(conditioner(12), Exact(), DDIM(SCHEDULE, 2), (3, 2, 2))


def answer(model: TextToImage, prompt: str) -> Tensor:
    """What the exact denoiser says of a prompt."""
    told = model.conditioner.encode([prompt])
    return model.denoiser(torch.zeros(1, 3, 2, 2), torch.ones(()), **told)[0]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_prompt_gets_its_own_images_in_a_row() -> None:
    model = exact()
    x = model.generate(["red", "green blue"], num=3, generator=generator())
    assert x.shape == (6, 3, 2, 2)
    for row, prompt in enumerate(["red"] * 3 + ["green blue"] * 3):
        torch.testing.assert_close(x[row], answer(model, prompt).clamp(-1, 1), atol=0.05, rtol=0)


@pytest.mark.parametrize(("negative", "null"), [(None, ""), ("green", "green")])
def test_guidance_leads_away_from_the_null_or_the_negative(negative: str, null: str) -> None:
    model = exact()
    x = model.generate(["red"], guidance=1.2, negative=negative, generator=generator())
    expected = answer(model, null) + 1.2 * (answer(model, "red") - answer(model, null))
    torch.testing.assert_close(x[0], expected.clamp(-1, 1), atol=0.05, rtol=0)


class Weighted(Exact):
    """What ``Exact`` and guidance away from the empty prompt say together, for any weight, in one
    call; it counts its calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        self.calls += 1
        told = super().forward(x_t, t, **condition)
        null = conditioner(12).unknown(len(x_t))
        untold = super().forward(x_t, t, **null)
        return untold + condition["guidance"].view(-1, 1, 1, 1) * (told - untold)


@pytest.mark.parametrize("weight", [1.0, 1.2, 2.0])
def test_a_student_of_many_weights_is_called_once_a_step(weight: float) -> None:
    student = Weighted()
    model = TextToImage(conditioner(12), student, DDIM(SCHEDULE, 2), (3, 2, 2), weights=(1.0, 2.0))
    x = model.generate(["red", "blue"], num=2, guidance=weight, generator=generator())
    assert student.calls == 2
    expected = exact().generate(["red", "blue"], 2, weight, generator=generator())
    torch.testing.assert_close(x, expected)
    with pytest.raises(ValueError, match="negative must be left out for a denoiser that has"):
        model.generate(["red"], guidance=weight, negative="blue")
    for wrong in (0.9, 2.1, float("nan")):
        with pytest.raises(ValueError, match="guidance must"):
            model.generate(["red"], guidance=wrong)


def tiny() -> TextToImage:
    torch.manual_seed(0)
    network = MobileUNet((4, 4, 4), 8, (8,), (1,), (1,), (True,), (True,))
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    pictures = torch.rand(20, 3, 8, 8) * 2 - 1
    autoencoder = PatchPCA(channels=4, patch=2).fit(pictures)
    return TextToImage(
        conditioner(8),
        Preconditioned(network, SCHEDULE),
        DDIM(SCHEDULE, 3),
        (3, 8, 8),
        guidance=1.5,
        autoencoder=autoencoder,
    )


def test_a_folder_keeps_it_to_the_bit(tmp_path: Path) -> None:
    model = tiny().eval()
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert isinstance(again, TextToImage)
    assert isinstance(again, Artefact)
    x, y = (m.generate(["red", ""], num=2, generator=generator()) for m in (model, again))
    assert x.shape == (4, 3, 8, 8)
    assert torch.equal(x, y)


def test_steps_guidance_and_seed_matter() -> None:
    model = tiny()
    x = model.generate(["red"], generator=generator())
    others = [
        model.generate(["red"], num_steps=2, generator=generator()),
        model.generate(["red"], guidance=1.0, generator=generator()),
        model.generate(["red"], negative="blue", generator=generator()),
        model.generate(["red"], generator=generator(1)),
        model.generate(["blue"], generator=generator()),
    ]
    assert all(not torch.equal(x, other) for other in others)
    assert torch.equal(x, model.generate(["red"], generator=generator()))


WRONG = [
    ({"prompts": "red"}, "prompts must be a list of one text or more, got 'red'"),
    ({"prompts": []}, "prompts must be a list of one text or more"),
    ({"prompts": None}, "prompts must be a list of one text or more, got None"),
    ({"prompts": ["red"], "num": 0}, "num must be an integer >= 1"),
    ({"prompts": ["red"], "num_steps": 0}, "num_steps must be an integer >= 1"),
    ({"prompts": ["red"], "guidance": float("nan")}, "guidance must be finite"),
    (
        {"prompts": ["red"], "guidance": 1, "negative": "blue"},
        "guidance must not be 1 with a negative prompt",
    ),
    ({"prompts": ["red red red red"]}, "at most 3"),
    ({"prompts": ["red"], "guidance": 2, "negative": "?!"}, "^negative must hold a word"),
    ({"prompts": ["red"], "guidance": 2, "negative": "red " * 4}, "^negative must have at most 3"),
    ({"prompts": ["red"], "guidance": 2, "negative": ["red"]}, "^negative must be a string"),
    ({"prompts": ["red"], "subject": "rex"}, "subject must be a Subject, got 'rex'"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_wrong_requests_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exact().generate(**arguments)


def test_parts_must_fit() -> None:
    with pytest.raises(ValueError, match=r"guidance must lie in \[2, 3\]"):
        TextToImage(conditioner(12), Exact(), DDIM(SCHEDULE, 2), (3, 2, 2), weights=(2, 3))
    with pytest.raises(ValueError, match="sampler must have the schedule"):
        TextToImage(conditioner(12), Exact(), DDIM(VPCosine(-5.0), 2), (3, 2, 2))
    with pytest.raises(ValueError, match="sides that are multiples of 2"):
        TextToImage(
            conditioner(12), Exact(), DDIM(SCHEDULE, 2), (3, 3, 3), autoencoder=tiny().autoencoder
        )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 16, 16), r"which draws \(4, 4, 4\), got \(3, 16, 16\), for .* draw \(4, 8, 8\)"),
        ((4, 8, 8), r"shape must be \(3, H, W\) with sides that are multiples of 2, got"),
    ],
)
def test_a_folder_of_another_shape_is_refused(
    shape: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    """As it is made, and as it is loaded, with a hash that fits."""
    model = tiny()
    with pytest.raises(ValueError, match=message):
        TextToImage(
            model.conditioner, model.denoiser, model.sampler, shape, autoencoder=model.autoencoder
        )
    model.save(tmp_path)
    path = tmp_path / "config.json"
    record = json.loads(re.sub(r"\[\s*3,\s*8,\s*8\s*\]", str(list(shape)), path.read_text()))
    del record["sha256"]
    path.write_text(json.dumps({**record, "sha256": fingerprint(record)}))
    with pytest.raises(ValueError, match=message):
        TextToImage.load(tmp_path)


WEIGHTS = [(1.0,), (2.0, 1.0), (1.0, float("inf")), 3.0, ("a", "b"), (True, 2.0)]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_are_two_finite_numbers_in_order(weights: object) -> None:
    with pytest.raises(ValueError, match=r"(weights|guidance).* must be (a range|finite)"):
        TextToImage(conditioner(12), Exact(), DDIM(SCHEDULE, 2), (3, 2, 2), weights=weights)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("shape", [3, (3, 2), (3, 2, 2, 2), None])
def test_a_shape_has_three_sides(shape: object) -> None:
    with pytest.raises(ValueError, match="shape must be"):
        TextToImage(conditioner(12), Exact(), DDIM(SCHEDULE, 2), shape)  # pyright: ignore[reportArgumentType]


def test_an_autoencoder_that_diverged_draws_nothing() -> None:
    model = tiny()
    assert model.autoencoder is not None
    model.autoencoder.mean.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="images must be finite: 1 of 1 are not"):
        model.generate(["red"], generator=generator())
