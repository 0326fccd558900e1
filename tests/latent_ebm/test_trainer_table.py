"""Every learning rule under every trainer flag and subcommand that may meet it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
)

from latent_ebm import GaussianPrior
from latent_ebm.learning import (
    MultiStageRatio,
    ScoreMatching,
    SelfAdversarial,
    ShortRunMLE,
    VICReg,
)
from latent_ebm.learning.adversarial import AdversarialRule
from latent_ebm.learning.base import LearningRule
from latent_ebm.learning.latent import LatentRule, acceptance
from samplers import (
    HMC,
    MALA,
    Annealed,
    Langevin,
    LowPrecision,
    ParallelTempering,
    Sampler,
    UnderdampedLangevin,
)
from tests.latent_ebm.test_learning import RULES, loader, mle, ratio, trainer

CHOSEN = ("mle persistent", "variational energy", "self-adversarial persistent")
# A row for every rule: the first in RULES, unless another one shows more.
KINDS = list({type(RULES[name]()): name for name in [*reversed(RULES), *CHOSEN]}.values())
MANUAL = [name for name in KINDS if isinstance(RULES[name](), AdversarialRule)]
SPEAKS = (LatentRule, ScoreMatching, SelfAdversarial, VICReg)  # of rows of data
FLAGS: dict[str, dict[str, Any]] = {
    "nothing logged": {"log_every_n_steps": 0},
    "barebones": {"barebones": True, "num_sanity_val_steps": None},
    "sanity check": {"num_sanity_val_steps": 2},
    "clipped": {"gradient_clip_val": 1.0},
    "accumulated": {"accumulate_grad_batches": 2},
    "averaged": {"callbacks": lambda: [EMAWeightAveraging(use_buffers=False, decay=0.5)]},
    "stochastically averaged": {
        "callbacks": lambda: [StochasticWeightAveraging(1e-2, 1)],
        "max_epochs": 2,
    },
}
REFUSED = {  # by Lightning or by the library, in one sentence
    ("ratio", "averaged"): "must not average weights",
    ("ratio", "stochastically averaged"): "must not average weights",
    **{(rule, "clipped"): "clipping is not supported for manual" for rule in MANUAL},
    **{(rule, "accumulated"): "accumulation is not supported for manual" for rule in MANUAL},
    **{
        (rule, "stochastically averaged"): "SWA currently works with 1 `optimizer`"
        for rule in MANUAL
    },
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:.*never moved:UserWarning"),
]


def expect(refusal: str | None, run: Callable[[], Any]) -> None:
    """Run, and be refused if a sentence is given."""
    if refusal is None:
        run()
        return
    with pytest.raises(Exception, match=refusal) as caught:
        run()
    assert type(caught.value).__name__ in ("ValueError", "MisconfigurationException")


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("name", KINDS)
def test_training_under_a_flag(name: str, flag: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    flags = {key: value() if callable(value) else value for key, value in FLAGS[flag].items()}
    run = trainer(
        tmp_path,
        **{"max_epochs": 1, "enable_checkpointing": False, "limit_train_batches": 2, **flags},
    )
    rule = RULES[name]()
    expect(REFUSED.get((name, flag)), lambda: run.fit(rule, loader(), loader(20)))
    assert all(bool(torch.isfinite(p).all()) for p in rule.parameters())


@pytest.mark.parametrize("name", KINDS)
def test_held_out_figures_and_predictions(name: str, tmp_path: Path) -> None:
    """validate, test and predict, with one loader and with two."""
    torch.manual_seed(0)
    rule = RULES[name]()
    for stage, command in {"val": "validate", "test": "test"}.items():
        (figures,) = getattr(trainer(tmp_path), command)(rule, loader(20), verbose=False)
        assert figures
        assert all(
            key.startswith(f"{stage}/") and math.isfinite(value) for key, value in figures.items()
        )
        first, second = getattr(trainer(tmp_path), command)(
            rule, [loader(20), loader(10)], verbose=False
        )
        assert set(first) == set(figures)
        assert {key.removesuffix("/dataloader_idx_1") for key in second} == set(figures)
    if isinstance(rule, VICReg):  # of images, which its views here are and its rows are not
        assert rule.predict_step(torch.zeros(4, 3, 8, 8)).shape == (4, 4)
        return
    predict = lambda: trainer(tmp_path).predict(rule, loader(20))  # noqa: E731
    expect(
        None if isinstance(rule, SPEAKS) else f"{type(rule).__name__} has nothing to predict",
        predict,
    )


@pytest.mark.parametrize("name", KINDS)
def test_schedulers_follow_the_epochs(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rule = RULES[name]()
    rule.scheduler = lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    before = [
        group["lr"] for optimizer in rule.make_optimizers() for group in optimizer.param_groups
    ]
    run = trainer(tmp_path, max_epochs=2, limit_train_batches=2, enable_checkpointing=False)
    run.fit(rule, loader(), loader(10))
    after = [group["lr"] for optimizer in run.optimizers for group in optimizer.param_groups]
    assert after == pytest.approx([rate / 4 for rate in before])


@pytest.mark.parametrize("name", KINDS)
def test_what_is_logged(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rule = RULES[name]()
    run = trainer(
        tmp_path,
        max_epochs=1,
        limit_train_batches=2,
        log_every_n_steps=1,
        enable_checkpointing=False,
    )
    run.fit(rule, loader(), loader(10))
    logged = set(run.logged_metrics)
    assert {f"gradient/{part}" for part in rule.PARTS} <= logged
    if isinstance(rule, (ShortRunMLE, SelfAdversarial)) or name == "variational energy":
        assert {"energy/data", "energy/model"} <= logged
    if isinstance(rule, MultiStageRatio):
        assert 0 < run.logged_metrics["acceptance/prior"] <= 1
    assert all(math.isfinite(value) for value in run.logged_metrics.values())


@pytest.mark.filterwarnings("ignore:this .* has no units for")
@pytest.mark.parametrize(
    ("sampler", "adjusted"),
    [
        (MALA(0.5, 3), True),
        (HMC(0.5, 2, 3), True),
        (LowPrecision(MALA(0.5, 3)), True),
        (Annealed(MALA(0.5, 3), (0.5, 1.0)), True),
        (ParallelTempering(MALA(0.5, 3), (0.5, 1.0)), True),
        (Langevin(0.5, 3), False),
        (UnderdampedLangevin(0.5, 1.0, 3), False),
        (Annealed(Langevin(0.5, 3), (0.5, 1.0)), False),
    ],
    ids=repr,
)
def test_acceptance_is_logged_of_all_that_accept_or_reject(
    sampler: Sampler, adjusted: bool
) -> None:
    z, before = torch.randn(500, 2), torch.get_rng_state()
    found = acceptance("prior", sampler, GaussianPrior(2), z)
    assert torch.equal(torch.get_rng_state(), before)
    assert set(found) == ({"acceptance/prior"} if adjusted else set())
    assert all(0.5 < value < 1 for value in found.values())


def test_logging_leaves_the_training_as_it_is(tmp_path: Path) -> None:
    def train(every: int) -> torch.Tensor:
        torch.manual_seed(0)
        rule, plain = ratio(), {"max_epochs": 1, "enable_checkpointing": False}
        trainer(tmp_path, log_every_n_steps=every, **plain).fit(rule, loader(), loader(10))
        return torch.cat([p.detach().flatten() for p in rule.parameters()])

    assert torch.equal(train(1), train(0))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"limit_val_batches": 0}, "limit_val_batches must leave batches .* got 0"),
        (
            {"check_val_every_n_epoch": 5},
            "check_val_every_n_epoch must be at most max_epochs = 1, .* got 5",
        ),
    ],
)
def test_stages_need_validations(flags: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        trainer(tmp_path, max_epochs=1, enable_checkpointing=False, **flags).fit(
            ratio(), loader(), loader(10)
        )


def test_checkpoints_of_a_stage_rule_are_saved_after_the_last_stage(tmp_path: Path) -> None:
    """At validations inside an epoch alone, they would lack what its end adds."""
    some = {"val_check_interval": 1, "max_epochs": 1, "limit_train_batches": 3}
    early, late = (ModelCheckpoint(tmp_path, save_on_train_epoch_end=end) for end in (False, True))
    late.filename = "late"
    sentence = "callbacks must have a ModelCheckpoint with save_on_train_epoch_end=True, .* False"
    with pytest.raises(ValueError, match=sentence):
        trainer(tmp_path, callbacks=[early], **some).fit(ratio(), loader(), loader(10))
    for every in (2, "00:00:10:00"):
        saver = ModelCheckpoint(tmp_path)
        run = trainer(tmp_path, callbacks=[saver], **{**some, "val_check_interval": every})
        with pytest.raises(ValueError, match="before the last stage is closed, got None"):
            run.fit(ratio(), loader(), loader(10))
    rule = ratio()
    rule.stages.tolerance = -10.0  # any stage is worth adding
    trainer(tmp_path, callbacks=[late], **some).fit(rule, loader(), loader(10))
    stored = torch.load(tmp_path / "late.ckpt", weights_only=True)["state_dict"]
    assert len(stored["model.prior.weights"]) == len(rule.model.prior.stages) > 0


def resume(tmp_path: Path, rule: LearningRule, **flags: Any) -> Trainer:
    run = trainer(tmp_path, max_epochs=2, enable_checkpointing=False, **flags)
    run.fit(rule, loader(), loader(10), ckpt_path=str(tmp_path / "a.ckpt"), weights_only=True)
    return run


def test_changed_settings_are_obeyed_on_resuming(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    run.fit(mle(prior_lr=1e-3), loader(), loader(10))
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = mle(prior_lr=1e-4)
    assert [group["lr"] for group in resume(tmp_path, again).optimizers[0].param_groups] == [
        1e-4,
        1e-2,
    ]
    again.optimizer = lambda groups: torch.optim.Adam(groups, lr=1e-2, betas=(0.5, 0.9))
    assert resume(tmp_path, again).optimizers[0].param_groups[1]["betas"] == (0.5, 0.9)


def test_changed_settings_are_refused_under_a_scheduler(tmp_path: Path) -> None:
    def scheduled(rate: float) -> LearningRule:
        return mle(
            prior_lr=rate, scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5)
        )

    run = trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    run.fit(scheduled(1e-3), loader(), loader(10))
    run.save_checkpoint(tmp_path / "a.ckpt")
    assert resume(tmp_path, scheduled(1e-3)).optimizers[0].param_groups[0]["lr"] == pytest.approx(
        1e-3 / 4
    )
    with pytest.raises(
        ValueError,
        match=r"lr must stay 0.001 while a scheduler goes on from a checkpoint, got 0.0001",
    ):
        resume(tmp_path, scheduled(1e-4))


def test_schedulers_that_need_a_figure_are_refused(tmp_path: Path) -> None:
    rule = mle(scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)
    with pytest.raises(
        ValueError, match="scheduler must follow the epochs, not a metric, got ReduceLROnPlateau"
    ):
        trainer(tmp_path, max_epochs=1).fit(rule, loader(), loader(10))


def test_a_rule_is_not_built_from_its_checkpoint_alone() -> None:
    with pytest.raises(
        NotImplementedError, match=r"use latent_ebm\.cli\.checkpoints\.load_rule\(path\)"
    ):
        ShortRunMLE.load_from_checkpoint("run/last.ckpt")


def test_the_rules_with_optimisers_of_their_own_are_known() -> None:
    assert {"ufogen", "diffusion gan"} <= set(MANUAL) < set(KINDS)
