"""Identity by supervised contrast: the loss is a plain loop, and subjects are found again."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from latent_ebm.conditions import Batch, Condition
from latent_ebm.data import Subjects
from latent_ebm.data.base import make_generator
from latent_ebm.learning import Augment, SupervisedContrast
from latent_ebm.networks import ResidualEncoder
from latent_ebm.objectives import supervised_contrast
from latent_ebm.subjects import LearnedIdentity


def unit(num: int, dim: int = 3) -> Tensor:
    return normalize(torch.randn(num, dim, generator=make_generator(3), dtype=torch.float64))


def loop(z: Tensor, label: list[int], temperature: float) -> Tensor:
    """Equation 2 of arXiv:2004.11362, term by term, averaged over rows that have a positive."""
    terms = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        positives = [p for p in others if label[p] == label[i]]
        total = torch.stack([(z[i] @ z[a] / temperature).exp() for a in others]).sum()
        logs = [z[i] @ z[p] / temperature - total.log() for p in positives]
        if logs:
            terms.append(-torch.stack(logs).sum() / len(positives))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("label", [[0, 1, 0, 1, 2, 0], [4, 4, 4, 4, 4, 4], [0, 0, 1, 2, 3, 4]])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_loss_and_gradient_are_those_of_a_plain_loop(label: list[int], temperature: float) -> None:
    z = unit(6).requires_grad_()
    made = supervised_contrast(z, torch.tensor(label), temperature)
    expected = loop(z, label, temperature)
    assert made.item() == pytest.approx(expected.item(), rel=1e-12)
    gradient, slow = (torch.autograd.grad(value, z)[0] for value in (made, expected))
    assert torch.allclose(gradient, slow, atol=1e-12)


def test_equal_vectors_cost_the_logarithm_of_the_others_and_separate_pairs_nothing() -> None:
    label = torch.arange(8) // 2
    same = torch.ones(8, 1, dtype=torch.float64)
    assert supervised_contrast(same, label, 0.1).item() == pytest.approx(math.log(7), rel=1e-12)
    apart = torch.eye(4, dtype=torch.float64).repeat_interleave(2, 0)
    assert supervised_contrast(apart, label, 0.02).item() == pytest.approx(0, abs=1e-12)


def test_labels_without_a_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="label must be the same for two rows at least"):
        supervised_contrast(unit(3), torch.arange(3), 0.1)
    with pytest.raises(ValueError, match="label must have shape"):
        supervised_contrast(unit(3), torch.arange(4), 0.1)


def rule(**arguments: object) -> SupervisedContrast:
    torch.manual_seed(0)
    parts = {
        "encoder": LearnedIdentity(ResidualEncoder(3, 12)),
        "augment": Augment(min_area=0.6, flip=0.0, jitter=0.1, grey=0.0, turn=math.pi),
        "optimizer": torch.optim.AdamW,
        **arguments,
    }
    return SupervisedContrast(**parts)  # pyright: ignore[reportArgumentType]


def recall(queries: Tensor, gallery: Tensor, answer: Tensor) -> float:
    """The share of queries whose nearest entry of the gallery is the right one."""
    return float((torch.cdist(queries, gallery).argmin(1) == answer).double().mean())


@pytest.mark.cpu
def test_held_out_subjects_are_found_again_better_than_by_their_pixels() -> None:
    """Queries in any pose and place on any background, and a gallery of one upright each."""
    data = Subjects(num=64 * 70, side=16, size=10, batch_size=64, seed=1)
    data.setup()
    trained = rule(second="reference")
    optimizer = torch.optim.AdamW(trained.parameters(), 2e-3)
    for batch in data.train_dataloader():
        loss = trained.losses(batch)["contrast"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    studio = data.test.studio
    portraits = [studio.draw(make_generator(5, i), i % len(studio.glyphs)) for i in range(128)]
    answer = torch.tensor([p.glyph for p in portraits])
    upright = [p._replace(pose=0) for p in portraits[: len(studio.glyphs)]]
    x, gallery = (
        torch.stack(list(map(f, ps)))
        for f, ps in ((studio.render, portraits), (studio.reference, upright))
    )
    trained.eval()
    with torch.no_grad():
        found = recall(trained.encoder(x), trained.encoder(gallery), answer)
    assert trained.predict_step(x).norm(dim=1).allclose(torch.ones(128))
    pixels = recall(x.flatten(1), gallery.flatten(1), answer)
    assert found > pixels + 0.2


def test_the_second_view_is_the_named_entry() -> None:
    """With the right one, views agree; a picture of something else in its place does not."""
    x, label = unit(4, 12).float().view(4, 3, 2, 2), torch.arange(4)
    flat = rule(encoder=LearnedIdentity(nn.Flatten()), augment=nn.Identity(), second="other")
    cost = [
        flat.losses(Batch(x, Condition({"label": label, "other": other}), None))["contrast"]
        for other in (x, x.flip(0))
    ]
    assert cost[0] < cost[1]
    alone = rule(encoder=LearnedIdentity(nn.Flatten()), augment=nn.Identity())
    batch = Batch(x, Condition({"label": label}), None)
    assert torch.equal(alone.losses(batch)["contrast"], cost[0])


def test_rows_of_unknown_class_are_subjects_of_their_own() -> None:
    x = unit(4, 12).float().view(4, 3, 2, 2)
    flat = rule(encoder=LearnedIdentity(nn.Flatten()), augment=nn.Identity())
    cost = [
        flat.losses(Batch(x, Condition({"label": torch.tensor(label)}), None))["contrast"]
        for label in ([-1, 2, -1, 0], [3, 2, 1, 0], [3, 2, 3, 0])
    ]
    assert cost[0] == cost[1] != cost[2]


def test_a_step_runs_on_meta_tensors() -> None:
    """Tensors that are made on a fixed device would raise there."""
    with torch.device("meta"):
        x, label = torch.empty(4, 3, 8, 8), torch.empty(4, dtype=torch.int64)
        made = SupervisedContrast(LearnedIdentity(nn.Flatten()), Augment(), torch.optim.AdamW)
    assert made.losses(Batch(x, Condition({"label": label}), None))["contrast"].is_meta


def test_odd_input_is_refused() -> None:
    x = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match="temperature must be finite and positive, got 0"):
        rule(temperature=0)
    with pytest.raises(ValueError, match="encoder must be a IdentityEncoder, got"):
        rule(encoder=ResidualEncoder(3, 2))
    with pytest.raises(ValueError, match="a batch must carry label, got Condition"):
        rule().losses(x)
    labelled = Batch(x, Condition({"label": torch.arange(2)}), None)
    with pytest.raises(ValueError, match="a batch must carry reference, got Condition"):
        rule(second="reference").losses(labelled)
    with pytest.raises(ValueError, match="must hold a generator to be sampled"):
        rule().generate(3)
