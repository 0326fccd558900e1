"""A scorer from captions: the loss is a plain loop, and copies in a batch are never wrong."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from latent_ebm.conditions import Batch, Condition
from latent_ebm.data import Emoji
from latent_ebm.data.base import make_generator
from latent_ebm.learning import TextImageContrast
from latent_ebm.learning.text_image_contrast import right_pairs
from latent_ebm.networks import PlacedEncoder
from latent_ebm.objectives import symmetric_contrast
from latent_ebm.scorers import ContrastiveScorer
from latent_ebm.text import TextTransformer, WordTokenizer

WORDS = WordTokenizer(["red", "blue", "star"], max_words=2)


def draws(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=make_generator(3), dtype=torch.float64)


def scorer() -> ContrastiveScorer:
    torch.manual_seed(0)
    return ContrastiveScorer(nn.Flatten(), TextTransformer(WORDS, 8, 1, 2), 12, 6)


def rule(**arguments: object) -> TextImageContrast:
    parts = {"scorer": scorer(), "optimizer": torch.optim.AdamW, **arguments}
    return TextImageContrast(**parts)  # pyright: ignore[reportArgumentType]


def batch(captions: list[str], pictures: list[int]) -> Batch:
    """Captions, each beside one of four pictures."""
    x = draws(4, 3, 2, 2).float()[pictures]
    return Batch(x, Condition({"tokens": WORDS(captions)}), None)


def loop(logits: Tensor, right: Tensor) -> Tensor:
    """The loss, term by term, over texts and over pictures."""
    sides = []
    for rows, pairs in ((logits, right), (logits.T, right.T)):
        terms = []
        for row, pair in zip(rows, pairs, strict=True):
            logs = [row[j] - row.exp().sum().log() for j in range(len(row)) if pair[j]]
            if logs:
                terms.append(-torch.stack(logs).mean())
        sides.append(torch.stack(terms).mean())
    return torch.stack(sides).mean()


@pytest.mark.parametrize("pairs", ["one", "several", "none in a row"])
def test_loss_and_gradient_are_those_of_a_plain_loop(pairs: str) -> None:
    logits = (3 * draws(5, 5)).requires_grad_()
    right = torch.eye(5, dtype=torch.bool)
    if pairs == "several":
        right = right | (draws(5, 5) > 0.5)
    if pairs == "none in a row":
        right = right.index_fill(0, torch.tensor([2]), False)
    made, expected = symmetric_contrast(logits, right), loop(logits, right)
    assert made.item() == pytest.approx(expected.item(), rel=1e-12)
    gradient, slow = (torch.autograd.grad(value, logits)[0] for value in (made, expected))
    assert torch.allclose(gradient, slow, atol=1e-12)


def test_without_copies_the_loss_is_that_of_clip() -> None:
    logits, own = draws(6, 6), torch.arange(6)
    expected = (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
    found = symmetric_contrast(logits, torch.eye(6, dtype=torch.bool))
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_right_pairs_are_those_of_one_caption_or_of_one_picture() -> None:
    """Rows 0 and 1 share a caption, rows 1 and 2 a picture: caption 0 is right for picture 2,
    which row 1 says, but caption 2 is not known to be right for picture 0.
    """
    x, condition, _ = batch(["red", "red", "blue star", "star"], [0, 1, 1, 2])
    found = right_pairs(condition["tokens"], x)
    expected = [[1, 1, 1, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert found.tolist() == torch.tensor(expected).bool().tolist()


@pytest.mark.parametrize(
    ("captions", "pictures"),
    [(["red", "red", "blue"], [0, 1, 2]), (["red", "red star", "blue"], [0, 0, 2])],
    ids=["one caption twice", "one picture twice"],
)
def test_copies_are_drawn_together_where_clip_pushes_them_apart(
    captions: list[str], pictures: list[int]
) -> None:
    """The gradient at equal logits: minus for what is right, plus for what is wrong."""
    x, condition, _ = batch(captions, pictures)
    right = right_pairs(condition["tokens"], x)
    logits = torch.zeros(3, 3, requires_grad=True)
    signs = []
    for positive in (right, torch.eye(3, dtype=torch.bool)):
        (gradient,) = torch.autograd.grad(symmetric_contrast(logits, positive), logits)
        signs.append(gradient.sign())
    assert signs[0][0, 1] == signs[0][1, 0] == -1
    assert signs[1][0, 1] == signs[1][1, 0] == 1
    assert torch.equal(signs[0][2], torch.tensor([1.0, 1, -1]))


def test_a_batch_of_copies_alone_has_nothing_to_learn() -> None:
    trained = rule()
    loss = trained.losses(batch(["red", "red"], [1, 1]))["contrast"]
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)
    loss.backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in trained.parameters())


def test_the_temperature_is_learnt_and_stays_above_its_floor() -> None:
    trained = rule()
    assert trained.scorer.temperature.item() == pytest.approx(0.07, rel=1e-6)
    trained.losses(batch(["red", "blue", "star"], [0, 1, 2]))["contrast"].backward()
    assert trained.scorer.log_excess.grad
    trained.scorer.log_excess.data.fill_(-30)
    assert trained.scorer.temperature.item() == pytest.approx(0.01, rel=1e-6)
    assert trained.watch()["temperature"] == trained.scorer.temperature


def test_pictures_are_augmented_in_training_alone() -> None:
    """By a view that makes all pictures alike; copies are told before it."""
    rows = batch(["red", "blue"], [0, 1])
    flat = rule(augment=nn.Threshold(100.0, 1.0))
    assert flat.losses(rows)["contrast"].item() > math.log(2) - 1e-6
    assert flat.eval().losses(rows)["contrast"] == rule().losses(rows)["contrast"]
    scores = flat.predict_step(rows)["score"]
    assert torch.allclose(scores, flat.scorer(["red", "blue"], rows.x))


def test_names_find_pictures_of_colours_and_shapes_that_training_has_not_paired() -> None:
    data = Emoji(source="shapes", side=16, batch_size=64)
    data.setup()
    torch.manual_seed(0)
    found = ContrastiveScorer(PlacedEncoder(3, 48), TextTransformer(data.tokenizer, 32, 1, 2), 48)
    trained = TextImageContrast(found, torch.optim.AdamW)
    optimizer, loader = torch.optim.AdamW(trained.parameters(), 3e-3), data.train_dataloader()
    for epoch in range(30):
        loader.sampler.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
        for rows in loader:
            loss = trained.losses(rows)["contrast"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    held = data.split_rows()[2]
    names, x = [str(name) for name in data.glyphs.names], data.glyphs.on(data.background)
    with torch.no_grad():
        nearest = found.eval().score_matrix(names, x).argmax(1)
    assert (nearest == torch.arange(len(x)))[held].double().mean() > 0.4  # guessing: 1 / 192


def test_a_step_runs_on_meta_tensors() -> None:
    """Tensors that are made on a fixed device would raise there."""
    rows = batch(["red", "blue", "red"], [0, 1, 2])
    meta = Batch(rows.x.to("meta"), rows.condition.to("meta"), None)
    assert rule().to("meta").losses(meta)["contrast"].is_meta


def test_odd_input_is_refused() -> None:
    with pytest.raises(ValueError, match="scorer must be a ContrastiveScorer, got"):
        rule(scorer=nn.Flatten())
    with pytest.raises(ValueError, match="a batch must carry tokens of captions, got Condition"):
        rule().losses(torch.zeros(2, 3, 2, 2))
    with pytest.raises(ValueError, match="must hold a generator to be sampled"):
        rule().generate(3)
    with pytest.raises(ValueError, match=r"right must have shape \(3, 2\)"):
        symmetric_contrast(torch.zeros(3, 2), torch.ones(2, 3).bool())
