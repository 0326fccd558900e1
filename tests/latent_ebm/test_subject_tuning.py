"""Tuning of a subject: what its loss looks at, what it moves, and rows that the algebra knows."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from latent_ebm.autoencoders import PatchPCA
from latent_ebm.conditions import Batch, Condition
from latent_ebm.denoisers import Preconditioned
from latent_ebm.learning import SubjectTuning, fit_batches
from latent_ebm.learning.subject_tuning import log_snr_at
from latent_ebm.networks import MobileUNet
from latent_ebm.text import SubjectConditioner, TextConditioner, TextTransformer, WordTokenizer
from samplers import DDIM, VPCosine
from tests.latent_ebm.tiny import QUIET

SCHEDULE = VPCosine(-2.0, 2.0)
WORDS = WordTokenizer(["a", "dog", "photo"], max_words=6)
SHAPE = (1, 4, 4)


def conditioner(num_rows: int = 2) -> SubjectConditioner:
    torch.manual_seed(0)
    texts = TextTransformer(WORDS, dim=8, show_padding=True)
    return SubjectConditioner(TextConditioner(texts), num_rows)


def network() -> MobileUNet:
    torch.manual_seed(1)
    net = MobileUNet(SHAPE, 8, (8,), (1,), (1,), (True,), (True,))
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return net


class Constant(nn.Module):
    """Paints every pixel with the first entry of the last row of the text."""

    def forward(self, x: Tensor, level: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        return text[:, -1, 0].view(-1, 1, 1, 1).expand_as(x)


def rule(net: nn.Module | None = None, **changes: Any) -> SubjectTuning:
    parts: dict[str, Any] = {
        "denoiser": Preconditioned(net or network(), SCHEDULE, "x"),
        "conditioner": conditioner(),
        "reverse": DDIM(SCHEDULE, 3),
        "shape": SHAPE,
        "optimizer": partial(torch.optim.Adam, lr=0.02),
    }
    return SubjectTuning(**{**parts, **changes})


def batch(mask: Tensor | None = None, num: int = 3) -> Batch:
    """Pictures that are .8 on the left half and -.6 on the right one."""
    x = torch.full((num, *SHAPE), 0.8)
    x[..., 2:] = -0.6
    masks = {} if mask is None else {"mask": mask.expand(num, 1, 4, 4)}
    tokens = TextConditioner(conditioner().conditioner.encoder).tokens(["a dog"] * num)
    return Batch(x, Condition({**tokens, **masks}), None)


def left(mask: float = 1.0) -> Tensor:
    mask_left = torch.zeros(1, 4, 4)
    mask_left[..., :2] = mask
    return mask_left


def loader_of(batches: list[Batch]) -> DataLoader:
    """Without a generator of its own it would draw from the stream of the rule when it starts."""
    own: dict[str, Any] = {"batch_size": None, "generator": torch.Generator()}
    return DataLoader(batches, **own)  # pyright: ignore[reportArgumentType]


def fit(tuning: SubjectTuning, given: Batch, *callbacks: Callback) -> None:
    loader = loader_of([given] * tuning.num_steps)
    options = {**QUIET, "limit_val_batches": 0}
    trainer = Trainer(max_steps=tuning.num_steps, callbacks=list(callbacks), **options)
    trainer.fit(tuning, loader, loader)


def test_batches_in_a_list_train() -> None:
    tuning = rule(num_shared=2)
    before = tuning.subject
    fit_batches(tuning, [batch(), batch()], tuning.num_steps)
    assert tuning.global_step == 2
    assert not torch.equal(tuning.subject, before)


def test_what_the_mask_hides_has_no_gradient() -> None:
    """Not a small one: exactly zero, for what the network draws outside."""
    drawn = []

    class Watched(Constant):
        def forward(self, *args: Tensor, **told: Tensor) -> Tensor:
            drawn.append(super().forward(*args, **told) * 1)
            drawn[-1].retain_grad()
            return drawn[-1]

    rule(Watched()).losses(batch(left()))["denoising"].backward()
    assert torch.equal(drawn[0].grad[..., 2:], torch.zeros(3, 1, 4, 2))
    assert bool(drawn[0].grad[..., :2].all())


def test_a_full_mask_is_no_mask() -> None:
    tuning, losses = rule(), []
    for given in (batch(), batch(torch.ones(1, 4, 4))):
        torch.manual_seed(2)
        losses.append(tuning.losses(given)["denoising"])
    assert torch.equal(*losses)


class Zero(nn.Module):
    def forward(self, x: Tensor, level: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        return 0 * x


def test_latents_weigh_as_much_as_their_share_of_the_mask() -> None:
    """One column of pixels of four is half of the first column of latents."""
    pixels = torch.zeros(1, 4, 4)
    pixels[..., :1] = 1
    pca = PatchPCA(channels=1, patch=2, in_channels=1).fit(torch.randn(9, 1, 4, 4))
    tuning, given = rule(Zero(), shape=(1, 2, 2), latents=pca), batch(pixels)
    z = pca.encode(given.x)
    torch.manual_seed(3)
    weight = (log_snr_at(tuning.reverse, z, None).exp() + 1).float().view(-1, 1, 1, 1)
    torch.manual_seed(3)
    loss = tuning.losses(given)["denoising"]
    torch.testing.assert_close(loss, 0.5 * (weight * z.square())[..., :1].mean() / 2)


class History(Callback):
    """Keeps all rows after every step."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        every = [pl_module.conditioner.rows, *pl_module.own]
        self.rows.append(torch.stack([rows.detach().clone() for rows in every]))


def test_rows_of_every_step_are_the_best_at_its_noise_level() -> None:
    """The loss w s (r - a)^2 + w_s (r - phi)^2 / 16 of one number r is least at a mean of a and
    phi, which moves towards a as the weight w grows with the SNR; s is the share of the mask.
    """
    history, strength = History(), 8.0
    tuning = rule(Constant(), num_shared=5, num_refining=120, regularization=strength)
    fit(tuning, batch(left()), history)
    log_snr = SCHEDULE.log_snr(tuning.reverse.times(torch.zeros(1))[:-1])
    weight, phi = (log_snr.exp() + 1) / 2, tuning.conditioner.start[-1, 0].double()
    pull = strength / 16
    expected = (weight * 0.8 + pull * phi) / (weight + pull)
    torch.testing.assert_close(tuning.subject[:, -1, 0].double(), expected, rtol=0, atol=2e-3)
    assert tuning.num_steps == len(history.rows) == 365
    for step in range(3):  # nothing moves before its turn, or after it
        first, last = 5 + 120 * step, 4 + 120 * (step + 1)
        before, now = history.rows[first - 1], history.rows[first]
        assert (now[step + 1] - before[step]).abs().max() <= 0.021
        assert all(torch.equal(rows[step], before[step]) for rows in history.rows[first:])
        assert not torch.equal(history.rows[last][step + 1], now[step + 1])


def test_nothing_but_rows_is_trained() -> None:
    tuning = rule(num_shared=2, num_refining=1)
    before = {name: value.clone() for name, value in tuning.state_dict().items()}
    fit(tuning, batch(left()))
    changed = {
        name for name, value in tuning.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"conditioner.rows", "own.0", "own.1", "own.2"}
    frozen = [p for n, p in tuning.named_parameters() if n not in changed]
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    assert tuning.subject.shape == (3, 2, 8)


@pytest.mark.parametrize("num", [2, 7])
def test_training_that_ends_early_leaves_the_last_rows_at_later_steps(num: int) -> None:
    """While all share their rows, and in the turn of the second step of the sampler."""
    tuning = rule(num_shared=4, num_refining=2)
    fit_batches(tuning, [batch()] * num, num)
    trained = tuning.conditioner.rows if num < 4 else tuning.own[1]
    assert not torch.equal(trained, tuning.conditioner.start)
    assert torch.equal(tuning.subject[2], trained)
    assert torch.equal(tuning.subject[0], tuning.subject[2]) == (num < 4)


def test_the_weights_are_trained_if_they_have_a_learning_rate() -> None:
    """Only while all steps share their rows, and at their own rate."""
    tuning = rule(num_shared=1, num_refining=2, model_lr=1e-3)
    before = {name: value.clone() for name, value in tuning.named_parameters()}
    history = []

    class Weights(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            history.append([p.clone() for p in tuning.denoiser.parameters()])

    fit(tuning, batch(left()), Weights())
    weights = tuning.denoiser.named_parameters("denoiser")
    moved = max((p.detach() - before[name]).abs().max().item() for name, p in weights)
    assert moved == pytest.approx(1e-3, rel=0.01)
    assert all(map(torch.equal, history[0], history[-1]))


def run(model_lr: float | None, callbacks: list[Callback], **path: Any) -> dict[str, Tensor]:
    """The weights that a training of nine steps ends in."""
    torch.manual_seed(4)
    tuning, given = rule(num_shared=3, num_refining=2, model_lr=model_lr), batch(left())
    loader = loader_of([given] * tuning.num_steps)
    options = {**QUIET, "enable_checkpointing": bool(callbacks), "limit_val_batches": 0}
    trainer = Trainer(max_steps=tuning.num_steps, callbacks=callbacks, **options)
    trainer.fit(tuning, loader, loader, **path)
    return tuning.state_dict()


def test_a_lora_is_trained_beside_the_rows() -> None:
    """And nothing else of the network that peft has wrapped."""
    peft = pytest.importorskip("peft", reason="needs the extra peft")
    layers = r".*_attention\.(query|key|value|out)"
    adapted = peft.get_peft_model(network(), peft.LoraConfig(r=2, target_modules=layers))
    texts = conditioner()
    texts.conditioner.requires_grad_(False)
    tuning = rule(adapted, conditioner=texts, num_shared=3, model_lr=1e-2)
    before = {name: value.clone() for name, value in tuning.state_dict().items()}
    fit(tuning, batch(left()))
    changed = {n for n, value in tuning.state_dict().items() if not torch.equal(value, before[n])}
    assert {name for name in changed if "lora_" not in name} == {"conditioner.rows"}
    assert any("lora_B" in name for name in changed)


@pytest.mark.filterwarnings("ignore:Be aware that when using", "ignore:You're resuming from")
@pytest.mark.parametrize("model_lr", [None, 1e-3])
def test_a_training_that_goes_on_ends_in_the_same_bits(
    model_lr: float | None, tmp_path: Path
) -> None:
    """From within the turn of a step of the sampler, and from its end."""
    keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    whole = run(model_lr, [keep])
    for step in (2, 5, 6):
        again = run(model_lr, [], ckpt_path=tmp_path / f"step={step}.ckpt")
        assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_a_step_runs_on_meta_tensors() -> None:
    tuning = rule(num_refining=1).to("meta")
    given = batch(left())
    given = Batch(given.x.to("meta"), given.condition.to("meta"), None)
    total = torch.stack(list(tuning.losses(given).values())).sum()
    total.backward()
    assert total.is_meta
    assert tuning.generate(2)["x"].is_meta


def test_samples_show_the_subject() -> None:
    tuning = rule(Constant())
    tuning.conditioner.rows.data[-1, 0] = 0.4
    tokens = tuning.conditioner.conditioner.tokens(["a dog", ""])
    x = tuning.generate(2, tokens)["x"]
    torch.testing.assert_close(x.mean(), torch.tensor(0.4), atol=0.3, rtol=0)


WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: rule(regularization=-1.0), "regularization must be finite and non-negative"),
    (lambda: rule(num_shared=0), "num_shared must be an integer >= 1"),
    (lambda: rule(num_refining=-1), "num_refining must be an integer >= 0"),
    (lambda: rule(model_lr=-1e-3), "model_lr must be finite and non-negative"),
    (lambda: rule(reverse=None), "reverse must be a ReverseSampler, got None"),
    (lambda: rule(denoiser="a"), "denoiser must be a Preconditioned, got 'a'"),
    (lambda: rule(reverse=DDIM(VPCosine(-3.0), 2)), "reverse must have the schedule"),
    (lambda: rule(conditioner=conditioner().conditioner), "conditioner must be a SubjectCond"),
    (
        lambda: rule().losses(batch()._replace(condition=Condition({"mask": torch.ones(3, 4)}))),
        r"mask must have shape \(3, 1, 4, 4\), like x, got \(3, 4\)",
    ),
    (lambda: rule().losses(torch.zeros(2, 1, 4, 4)), "must carry tokens"),
]


@pytest.mark.parametrize(("make", "words"), WRONG)
def test_refusals(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
