"""The rule for autoencoders: better than PCA where it started, closed forms of its terms, and a
frozen encoder that stays.
"""

from functools import partial
from itertools import chain
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.utils.data import DataLoader, TensorDataset

from latent_ebm.autoencoders import Autoencoder, ConvAutoencoder, Maps, PatchCritic, PatchPCA
from latent_ebm.data.base import DataModule, Pair
from latent_ebm.learning.autoencoding import Autoencoding, divergence_from_normal
from latent_ebm.networks.classifier import FeatureClassifier
from tests.latent_ebm.test_autoencoders import WIDTHS, images

ADAM = partial(torch.optim.Adam, lr=3e-3)


def started(x: Tensor, random: bool = False) -> ConvAutoencoder:
    torch.manual_seed(0)
    return ConvAutoencoder(4, 4, **WIDTHS, random=random).start(PatchPCA(4, 4).fit(x))


def full(autoencoder: ConvAutoencoder) -> Autoencoding:
    """The rule with all of its terms."""
    parts = {"features": FeatureClassifier((3, 8, 8), 2, 2), "critic": PatchCritic(3, 8, 1)}
    weights = {"kl": 0.01, "perceptual": 0.1, "adversarial": 0.1, "penalty": 0.5}
    return Autoencoding(autoencoder, ADAM, **weights, **parts, critic_lr=1e-3)


class Images(DataModule):
    """The same images for all parts."""

    def __init__(self, x: Tensor, batch_size: int) -> None:
        super().__init__(batch_size, seed=0)
        self.x = x

    def load(self) -> tuple[Pair, Pair, Pair]:
        return ((self.x, None),) * 3


def error(autoencoder: Autoencoder, x: Tensor) -> float:
    return (autoencoder(x) - x).square().mean().item()


def fit(rule: Autoencoding, x: Tensor, epochs: int) -> None:
    loader = DataLoader(TensorDataset(x), batch_size=20)
    quiet = dict(logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", enable_progress_bar=False, **quiet)
    trainer.fit(rule, loader, loader)


def test_training_starts_at_pca_and_gets_better() -> None:
    x = images(120)
    autoencoder = started(x)
    rule = Autoencoding(autoencoder, ADAM)
    first = error(autoencoder, x)
    assert rule.losses(x)["reconstruction"].item() == pytest.approx(first, rel=1e-5)
    assert first == pytest.approx(error(PatchPCA(4, 4).fit(x), x), rel=1e-3)
    fit(rule, x, epochs=15)
    assert error(autoencoder, x) < 0.9 * first


def test_statistics_are_measured_over_the_epoch() -> None:
    x = images(60)
    autoencoder = started(x)
    rule = Autoencoding(autoencoder, partial(torch.optim.SGD, lr=0.0))
    nn.init.normal_(autoencoder.encoder.leave.weight)
    fit(rule, x, epochs=2)
    deviation, mean = torch.std_mean(autoencoder.encode(x), (0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(deviation, torch.ones(4), rtol=0, atol=1e-4)


def test_a_checkpoint_must_hold_the_statistics_of_its_epoch(tmp_path: Path) -> None:
    x = images(60)
    trainer = Trainer(
        max_epochs=2,
        check_val_every_n_epoch=2,
        accelerator="cpu",
        callbacks=[ModelCheckpoint(tmp_path)],
        logger=False,
        enable_progress_bar=False,
    )
    with pytest.raises(ValueError, match="before the statistics of latents are set, got None"):
        trainer.fit(Autoencoding(started(x), ADAM), Images(x, batch_size=20))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", [2, 3])
def test_statistics_of_an_epoch_survive_a_resume(tmp_path: Path, step: int) -> None:
    x = images(60)
    data = Images(x, batch_size=20)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    for path in (None, tmp_path / f"step={step}.ckpt"):
        rule = Autoencoding(started(x), partial(torch.optim.SGD, lr=0.0))
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            default_root_dir=tmp_path,
            callbacks=[ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)],
            **quiet,
        )
        trainer.fit(rule, data, ckpt_path=path, weights_only=True)
        z = rule.autoencoder.encode(x)
        deviation, mean = torch.std_mean(z, (0, 2, 3), correction=0)
        torch.testing.assert_close(mean, torch.zeros(4), rtol=0, atol=1e-4)
        torch.testing.assert_close(deviation, torch.ones(4), rtol=0, atol=1e-4)


def test_a_frozen_encoder_stays() -> None:
    x = images(60)
    trained = started(x)
    fit(Autoencoding(trained, ADAM), x, epochs=1)
    light = ConvAutoencoder(4, 4, **(WIDTHS | {"decoder_width": 16})).take_encoder(trained)
    z, y = light.encode(x), light.decode(trained.encode(x))
    assert torch.equal(z, trained.encode(x))
    fit(Autoencoding(light, ADAM, freeze_encoder=True), x, epochs=1)
    assert torch.equal(light.encode(x), z)
    assert not torch.allclose(light.decode(z), y)


def test_the_kl_term_is_the_closed_form() -> None:
    torch.manual_seed(0)
    mean, deviation = torch.randn(5, 3, 2, 2), torch.rand(5, 3, 2, 2) + 0.1
    expected = kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).sum((1, 2, 3)).mean()
    torch.testing.assert_close(divergence_from_normal(Maps(mean, deviation)), expected)
    assert divergence_from_normal(Maps(mean, None)) == 0


def test_every_loss_moves_its_own_part() -> None:
    x = images(10)
    rule = full(started(x, random=True))
    losses = rule.losses(x)
    names = {"reconstruction", "kl", "perceptual", "adversarial", "critic", "penalty"}
    assert set(losses) == names
    parts = {"autoencoder": rule.autoencoder, "critic": rule.critic}
    for name, loss in losses.items():
        rule.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)
        moved = {
            k for k, m in parts.items() if m and any(p.grad is not None for p in m.parameters())
        }
        assert moved == ({"critic"} if name in ("critic", "penalty") else {"autoencoder"}), name
    group, critic = rule.make_optimizers()[0].param_groups
    assert (group["lr"], critic["lr"]) == (3e-3, 1e-3)
    total = torch.stack(list(rule.losses(x).values())).sum()
    total.backward()
    assert all(p.grad is not None for p in chain(group["params"], critic["params"]))


def test_no_penalty_is_taken_of_held_out_images() -> None:
    x = images(10)
    rule = full(started(x, random=True)).eval()
    losses = rule.losses(x)
    assert "penalty" not in losses
    assert all(bool(loss.isfinite()) for loss in losses.values())


def test_one_step_runs_on_meta_tensors() -> None:
    rule = full(ConvAutoencoder(4, 4, **WIDTHS, random=True)).to("meta")
    total = torch.stack(list(rule.losses(images(4).to("meta")).values())).sum()
    total.backward()
    rule.make_optimizers()[0].step()
    rule.on_train_epoch_end()
    assert total.is_meta


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kl": -1.0}, "kl must be finite and non-negative, got -1.0"),
        ({"kl": 0.1}, "kl must be 0 for an encoder that is frozen or not random, got 0.1"),
        ({"perceptual": 0.1}, "perceptual and features must be given together, got 0.1 and no"),
        (
            {"critic": PatchCritic()},
            "adversarial and critic must be given together, got 0.0 and a",
        ),
        ({"adversarial": 1.0}, "adversarial and critic must be given together"),
    ],
)
def test_terms_and_parts_come_together(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Autoencoding(ConvAutoencoder(4, 4, **WIDTHS), ADAM, **arguments)


def test_what_an_autoencoder_cannot_do_is_refused() -> None:
    rule = Autoencoding(ConvAutoencoder(4, 4, **WIDTHS), ADAM)
    with pytest.raises(ValueError, match="no distribution of latents"):
        rule.generate(3)
    with pytest.raises(ValueError, match="multiples of 4"):
        rule.losses(images(4, size=6))
    with pytest.raises(ValueError, match="encoder of trained must have the sizes"):
        ConvAutoencoder(5, 4, **WIDTHS).take_encoder(rule.autoencoder)
