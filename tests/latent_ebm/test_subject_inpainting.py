"""The rule of DreamInpainter: where its losses look, what it is told, and equation 5."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from latent_ebm.autoencoders import ConvAutoencoder, LatentSpace, PatchPCA
from latent_ebm.conditions import Batch, Condition
from latent_ebm.denoisers import Preconditioned
from latent_ebm.guidance.inpainting import blank, guided_fill
from latent_ebm.learning import SubjectInpainting
from latent_ebm.learning.subject_inpainting import ASKED
from latent_ebm.networks import MobileUNet, SubjectUNet
from latent_ebm.selection import Discriminative, Random, TokenSelection
from latent_ebm.text import TextConditioner, TextTransformer, WordTokenizer
from samplers import DDIM, VPCosine

SCHEDULE = VPCosine(-8.0, 10.0)
WORDS = WordTokenizer(["a", "red", "blue", "dog"], max_words=3)
ADAM = partial(torch.optim.Adam, lr=3e-3)
HOLE = torch.zeros(4, 1, 8, 8)
HOLE[:, :, 2:6, 3:7] = 1
CAPTIONS, CLASS = ["a red dog", "a blue dog", "a dog", "a red dog"], ["dog"] * 4


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)


def unet(channels: int, side: int) -> MobileUNet:
    levels = {"channels": (8, 16), "depth": (1, 1), "transformers": (1, 1)}
    switches = {"self_attention": (False, False), "cross_attention": (True, True)}
    return MobileUNet((channels, side, side), 8, **levels, **switches)


def rule(
    selection: TokenSelection | None = None, latents: LatentSpace | None = None, **changes
) -> SubjectInpainting:
    """A rule for pictures (3, 8, 8), or latents (4, 4, 4) of these, whose network is awake."""
    torch.manual_seed(0)
    shape = (3, 8, 8) if latents is None else (4, 4, 4)
    network = SubjectUNet(unet(2 * shape[0] + 1, shape[1]), selection or Discriminative(3))
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return SubjectInpainting(
        Preconditioned(network, SCHEDULE, data_scale=0.6),
        DDIM(SCHEDULE, 3),
        shape,
        ADAM,
        TextConditioner(TextTransformer(WORDS, dim=8)),
        latents=latents,
        **changes,
    )


def pca() -> PatchPCA:
    return PatchPCA(4, 2).fit(draws(20, 3, 8, 8))


def batch(**changes: Tensor) -> Batch:
    told = {
        **{"tokens": WORDS(CAPTIONS), "class_tokens": WORDS(CLASS)},
        **{"mask": HOLE, "reference": draws(4, 3, 8, 8, seed=1)},
    }
    null = {"tokens": WORDS([""])[0]}
    return Batch(draws(4, 3, 8, 8), Condition({**told, **changes}, null), torch.arange(4))


def asked(**changes: Tensor) -> Condition:
    told = {"tokens": WORDS(CAPTIONS), "image": draws(4, 3, 8, 8), "mask": HOLE}
    return Condition({**told, "reference": draws(4, 3, 8, 8, seed=1), **changes})


def spied(learner: SubjectInpainting) -> list[tuple[tuple, dict, Tensor]]:
    """Calls of the denoiser: arguments, conditions and outputs."""
    calls: list[tuple[tuple, dict, Tensor]] = []
    learner.denoiser.register_forward_hook(
        lambda module, args, told, out: calls.append((args, told, out)), with_kwargs=True
    )
    return calls


def test_losses_are_means_over_what_is_drawn() -> None:
    learner = rule(dropout=0.0, regularization=0.5)
    calls, given = spied(learner), batch()
    losses = learner.losses(given)
    for (name, share), (_, told, out) in zip(
        {"inpainting": HOLE, "regularization": torch.ones_like(HOLE)}.items(), calls, strict=True
    ):
        weight = SCHEDULE.log_snr(told["t"]).exp() + 0.6**-2
        errors = (out - given.x).square() * weight.view(-1, 1, 1, 1)
        expected = errors.masked_select(share.bool()).mean()
        torch.testing.assert_close(
            losses[name], (0.5 if name == "regularization" else 1) * expected.float()
        )


def test_outside_of_the_mask_nothing_is_learnt_in_the_main_loss() -> None:
    learner = rule(regularization=0.0)
    calls = spied(learner)
    losses = learner.losses(batch())
    assert list(losses) == ["inpainting"]
    (grad,) = torch.autograd.grad(losses["inpainting"], calls[0][2])
    assert not (grad * (1 - HOLE)).any()
    assert (grad * HOLE).abs().sum((1, 2, 3)).min() > 0


def test_each_loss_is_told_its_text_and_the_subject() -> None:
    learner = rule(dropout=0.0)
    calls, given = spied(learner), batch()
    learner.losses(given)
    (_, word, _), (_, caption, _) = calls
    for told, prompts in ((word, CLASS), (caption, CAPTIONS)):
        for name, value in learner.conditioner.encode(prompts).items():
            assert torch.equal(told[name], value)
        assert torch.equal(told["subject"], learner.subject(given.condition["reference"]))
    assert torch.equal(word["known"], torch.cat([given.x * (1 - HOLE), HOLE], 1))
    assert "known" not in caption


def test_dropout_leaves_out_the_text_alone() -> None:
    learner = rule(dropout=1.0)
    calls = spied(learner)
    learner.losses(batch())
    for _, told, _ in calls:
        torch.testing.assert_close(told["text"], learner.conditioner.unknown(4)["text"])
        assert told["subject"].std() > 0


def test_what_is_in_the_hole_is_hidden() -> None:
    """Also in latents, whose hole is every place that the hole of the picture touches, and from
    an encoder that sees beyond its place.
    """
    wide = ConvAutoencoder(4, 2, 3, 8, 1, 8, 1)
    for parameter in wide.parameters():
        nn.init.normal_(parameter, std=0.3)
    x, hole = draws(4, 3, 8, 8), HOLE.clone()
    hole[:, :, 6, 6] = 1
    for latents in (None, wide, pca()):
        known = blank(x, hole, latents)
        assert torch.equal(blank(x + 3 * hole, hole, latents), known)
        kept, small = known[:, :-1], known[:, -1:]
        assert kept.masked_select(small == 0).all()
        assert latents is not None or not (kept * small).any()
    touched = hole.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
    assert torch.equal(small, touched)


@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_guidance_is_equation_5(weight: float) -> None:
    learner, given = rule(), asked()
    text = learner.conditioner.encode(CAPTIONS)
    shown = {"known": blank(given["image"], HOLE), "subject": learner.subject(given["reference"])}
    x_t, t = draws(4, 3, 8, 8, seed=2), torch.tensor(0.4)
    told, null = (learner.denoiser(x_t, t, **part, **shown) for part in (text, text.unknown()))
    guided, condition = guided_fill(learner.denoiser, text, weight, **shown)
    torch.testing.assert_close(guided(x_t, t, **condition), null + weight * (told - null))


@pytest.mark.parametrize("latent", [False, True])
def test_samples_are_the_picture_outside_of_the_hole(latent: bool) -> None:
    learner, given = rule(latents=pca() if latent else None).eval(), asked()
    seeded = torch.Generator().manual_seed
    found = learner.generate(4, given, guidance=2.0, generator=seeded(0))
    image = given["image"]
    assert torch.equal(found["x"] * (1 - HOLE), image * (1 - HOLE))
    assert (found["x"] - image).abs().mul(HOLE).amax((1, 2, 3)).min() > 0.01
    again = learner.generate(4, given, guidance=2.0, generator=seeded(0))
    assert torch.equal(again["x"], found["x"])
    hidden = asked(image=image * (1 - HOLE))
    assert torch.equal(
        learner.generate(4, hidden, guidance=2.0, generator=seeded(0))["x"] * HOLE,
        found["x"] * HOLE,
    )
    others = [
        learner.generate(4, given, generator=seeded(0)),
        learner.generate(4, given, guidance=2.0, num_steps=2, generator=seeded(0)),
        learner.generate(4, asked(tokens=WORDS(CLASS)), guidance=2.0, generator=seeded(0)),
        learner.generate(4, asked(reference=image), guidance=2.0, generator=seeded(0)),
    ]
    assert all(not torch.equal(other["x"], found["x"]) for other in others)


def test_a_random_selection_follows_the_generator() -> None:
    learner, given = rule(Random(3)).eval(), asked()
    first, again, other = (
        learner.generate(4, given, generator=torch.Generator().manual_seed(s))["x"]
        for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_it_learns_the_colour_of_the_reference() -> None:
    """The hole is as light or dark as the reference, which nothing but the tokens can tell."""
    learner = rule(regularization=0.0, log_snr=(-2.0, 2.0))
    optimizer = learner.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    light = torch.tensor([0.8, -0.8] * 4).view(8, 1, 1, 1)
    hole, words = HOLE[:1].expand(8, -1, -1, -1), WORDS(["dog"] * 8)
    reference = torch.zeros(8, 3, 8, 8)
    reference[:, :, 1:7, 1:7] = light
    told = {"tokens": words, "class_tokens": words, "mask": hole, "reference": reference}
    x = (hole * light).repeat(1, 3, 1, 1)
    for _ in range(60):
        loss = learner.losses(Batch(x, Condition(told), None))["inpainting"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    given = Condition(
        {"tokens": words, "image": x * (1 - hole), **{k: told[k] for k in ASKED[2:]}}
    )
    found = learner.eval().generate(8, given, generator=torch.Generator().manual_seed(0))["x"]
    inside = (found * hole).sum((1, 2, 3)) / hole[0].sum() / 3
    assert (inside - light.flatten()).abs().mean() < 0.3


def test_a_step_on_meta() -> None:
    learner = rule().to("meta")
    told = batch().condition.to("meta")
    losses = learner.losses(Batch(torch.zeros(4, 3, 8, 8, device="meta"), told, None))
    assert all(loss.device.type == "meta" for loss in losses.values())


WRONG = [
    ({"mask": HOLE[:, :, :7]}, ValueError, "mask must be a floating tensor of shape"),
    ({"mask": 0 * HOLE}, ValueError, "mask must be 1 somewhere in every row"),
    ({"mask": torch.ones_like(HOLE)}, ValueError, "mask must be 0 somewhere in every row"),
    ({"mask": HOLE / 2}, ValueError, "mask must hold 0 and 1 alone"),
    ({"reference": torch.full((4, 3, 8, 8), 0.3)}, ValueError, "reference must show a subject"),
    ({"reference": draws(4, 3, 4, 4)}, ValueError, "reference must be torch.float32 of the shape"),
    ({"reference": torch.full((4, 3, 8, 8), torch.nan)}, FloatingPointError, "reference must be"),
]


@pytest.mark.parametrize(("changes", "error", "message"), WRONG)
def test_wrong_pictures_are_refused(changes: dict, error: type, message: str) -> None:
    learner = rule()
    with pytest.raises(error, match=message):
        learner.losses(batch(**changes))
    with pytest.raises(error, match=message):
        learner.generate(4, asked(**changes))


def test_missing_entries_and_other_networks_are_refused() -> None:
    learner = rule()
    told = {name: v for name, v in batch().condition.items() if name != "class_tokens"}
    with pytest.raises(ValueError, match="inpainting must be given tokens, class_tokens, mask"):
        learner.losses(Batch(draws(4, 3, 8, 8), Condition(told), None))
    for condition in (None, Condition({"tokens": WORDS(CAPTIONS)})):
        with pytest.raises(ValueError, match="must be given tokens, image, mask, reference"):
            learner.generate(4, condition)
    with pytest.raises(ValueError, match="condition tokens must have 3 rows, got 4"):
        learner.generate(3, asked())
    parts = learner.reverse, (3, 8, 8), ADAM, learner.conditioner
    with pytest.raises(ValueError, match="must have a SubjectUNet as its network, got a MobileUN"):
        SubjectInpainting(Preconditioned(unet(3, 8), SCHEDULE), *parts)
    with pytest.raises(ValueError, match="regularization must be finite and non-negative"):
        SubjectInpainting(learner.denoiser, *parts, regularization=-1.0)
    with pytest.raises(ValueError, match="reverse must have the schedule"):
        SubjectInpainting(learner.denoiser, DDIM(VPCosine(), 3), *parts[1:])
    with pytest.raises(ValueError, match="reverse must be a ReverseSampler, got None"):
        SubjectInpainting(learner.denoiser, None, *parts[1:])  # pyright: ignore
