"""Units and ranges that training knows: they travel with the model, and others are noticed."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from latent_ebm import BernoulliLikelihood, EnergyPrior, GaussianPrior, LatentModel, Masked
from latent_ebm.cli import main
from latent_ebm.cli.checkpoints import load_rule
from latent_ebm.data import Arrays, Toy2D
from latent_ebm.data.ranges import compare_ranges, range_of
from latent_ebm.networks import MLP, EnergyMLP
from samplers import Langevin
from tests.latent_ebm.tiny import fit, make_config, part


def make_rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"time": rng.normal(200, 0.01, 120), "height": rng.normal(-3, 40, 120)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of rows in units of their own, trained for an epoch."""
    folder = tmp_path_factory.mktemp("units")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_rows().to_csv("rows.csv", index=False)
        make_rows().assign(site="north", who=range(120)).to_csv("more.csv", index=False, sep=";")
        config = make_config("mle", epochs=1)
        options = {"drop": ["site"], "id": "who", "sep": ";", "header": True, "missing": "drop"}
        config["data"] = part("latent_ebm.data.Arrays", path="more.csv", batch_size=20, **options)
        assert fit(config, folder) == 0
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def scores(*args: str) -> np.ndarray:
    assert main(["score", "run/last.ckpt", *args, "--out", "scores.csv"]) == 0
    with open("scores.csv", newline="") as file:
        return np.array([float(row["joint"]) for row in csv.DictReader(file)])


def test_rows_of_a_file_score_as_those_of_the_test_split(
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = Arrays("rows.csv", batch_size=20)
    data.setup()
    expected = scores("test")
    frame = pd.DataFrame(data.inverse_transform(data.test.x).numpy(), columns=["time", "height"])
    frame.to_csv("new.csv", index=False)
    np.testing.assert_allclose(scores("new.csv"), expected, rtol=1e-3)
    np.save("new.npy", frame.to_numpy())
    np.testing.assert_allclose(scores("new.npy"), expected, rtol=1e-3)
    frame.assign(id=range(7, 7 + len(frame)))[["height", "id", "time"]].to_csv("new.csv")
    capsys.readouterr()
    np.testing.assert_allclose(scores("new.csv"), expected, rtol=1e-3)  # columns in another order
    assert "column 'id' is left out" in capsys.readouterr().err
    assert pd.read_csv("scores.csv")["index"].tolist() == list(
        range(len(frame))
    )  # of pandas' index


def test_small_and_shifted_columns_are_not_constant(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(100, 2))
    np.save(
        tmp_path / "x.npy",
        np.column_stack([1e9 + 100 * noise[:, 0], 1e-13 * noise[:, 1], np.full(100, 0.1)]),
    )
    data = Arrays(str(tmp_path / "x.npy"))
    data.setup()
    torch.testing.assert_close(
        data.train.x.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), rtol=1e-4, atol=1e-6
    )
    assert data.scale[2] == 1


def test_columns_of_other_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    make_rows().rename(columns={"time": "hour"}).to_csv("new.csv", index=False)
    assert main(["score", "run/last.ckpt", "new.csv", "--out", "scores.csv"]) == 1
    assert (
        "columns of the training data, got no 'time' among 'hour', 'height'"
        in capsys.readouterr().err
    )
    assert main(["score", "run/last.ckpt", "new.csv", "--out", "scores.csv", "--size", "8"]) == 1
    assert "--size must be left out for files of rows, got 8" in capsys.readouterr().err


def test_samples_have_the_units_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "run/last.ckpt", "--num", "200", "--out", "x.npz"]) == 0
    with np.load("x.npz") as arrays:
        x = arrays["x"]
    assert abs(x[:, 0].mean() - 200) < 0.1
    assert x[:, 1].std() > 1
    capsys.readouterr()
    assert len(scores("x.npz")) == 200
    assert capsys.readouterr().err == ""


def test_other_units_are_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("new.npy", make_rows().to_numpy() * [1000, 1])
    scores("new.npy")
    said = capsys.readouterr().err
    assert (
        "new.npy: 120 of 120 rows lie far outside the range of the training data; entry 0" in said
    )


def test_the_file_may_be_gone_or_have_grown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("new.npy", make_rows().to_numpy())
    args = ["--out", "scores.csv"]
    assert main(["score", str(folder / "run/last.ckpt"), "new.npy", *args]) == 0
    _, data = load_rule(folder / "run/last.ckpt")
    assert isinstance(data, Arrays)
    mean = data.mean.clone()
    (make_rows() * 7).assign(site="south", who=range(120)).to_csv("more.csv", index=False, sep=";")
    data.setup()
    assert torch.equal(data.mean, mean)
    assert data.train.x[:, 1].std() > 4  # in units of the model's, not its own


def test_statistics_of_a_checkpoint_hold_for_rows_loaded_before() -> None:
    data, other = (Arrays("rows.csv", seed=seed) for seed in (0, 1))
    data.setup()
    other.setup()
    other.load_state_dict(data.state_dict())
    assert torch.equal(other.mean, data.mean)
    for rows in (data.train, other.train):
        back = data.inverse_transform(rows.x)
        assert (back[:, 0] - 200).abs().max() < 0.1
    for key, value, said in (
        ("scale", torch.zeros(2), "scale positive"),
        ("range", (torch.ones(2), torch.zeros(2)), "two tensors of one shape in order"),
        ("names", 3, "names must be None or a list of texts, got int"),
    ):
        with pytest.raises(ValueError, match=said):
            data.load_state_dict({**data.state_dict(), key: value})


def test_checkpoints_without_statistics_take_those_of_the_file() -> None:
    data, known = Arrays("rows.csv"), Arrays("rows.csv")
    known.setup()
    torch.testing.assert_close(
        data.inverse_transform(known.test.x), known.inverse_transform(known.test.x)
    )
    gone = Toy2D(num=10)
    x = torch.ones(3, 2)
    assert gone.inverse_transform(x) is x  # nothing is loaded where nothing is needed
    assert not hasattr(gone, "train")


def test_columns_are_matched_with_the_checkpoint() -> None:
    data = Arrays("rows.csv")
    data.setup()
    make_rows()[["height", "time"]].to_csv("turned.csv", index=False)
    turned = Arrays("turned.csv")
    turned.load_state_dict(data.state_dict())
    turned.setup()
    assert torch.equal(turned.train.x, data.train.x)


def test_what_was_left_out_is_said() -> None:
    make_rows().to_csv("index.csv")
    with pytest.warns(UserWarning, match=r"index\.csv: column 'Unnamed: 0' is left out"):
        Arrays("index.csv").setup()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda x: 127.5 * (x + 1),
            "pixels have the range [0, 255], those of the training data [-1, 1]",
        ),
        (lambda x: (x + 1) / 2, "the range [0, 1]"),
        (lambda x: x, None),
    ],
    ids=["bytes", "unit", "same"],
)
def test_ranges_of_images(change: Any, words: str | None) -> None:
    x = torch.linspace(-1, 1, 4 * 64).view(4, 1, 8, 8)
    said = compare_ranges(change(x), *range_of(x))
    assert said is None if words is None else words in str(said)


def test_a_few_unusual_rows_are_no_other_units() -> None:
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    low, high = range_of(x)
    assert (
        compare_ranges(torch.where(torch.arange(100)[:, None] < 40, 1000.0, x), low, high) is None
    )
    assert "entry 2" in str(compare_ranges(x + torch.tensor([0, 0, 99.0]), low, high))


def test_pictures_of_images_in_other_units() -> None:
    rng = np.random.default_rng(0)
    np.save("images.npy", rng.integers(0, 256, (30, 1, 4, 4), dtype=np.uint8))
    data = Arrays("images.npy")
    data.setup()
    x = data.as_pictures(data.train.x)
    torch.testing.assert_close((x.min().item(), x.max().item()), (-1.0, 1.0), atol=1e-6, rtol=0)
    toy = Toy2D(num=10)
    assert toy.as_pictures(x) is x


def test_a_bernoulli_likelihood_refuses_other_ranges() -> None:
    prior = EnergyPrior(EnergyMLP(2, [4]), GaussianPrior(2), Langevin(0.1, 2))
    likelihood = BernoulliLikelihood(MLP(2, (3,), [4]))
    model, x, z = LatentModel(prior, likelihood), torch.rand(5, 3), torch.zeros(5, 2)
    model.log_posterior(x)
    for bad, shown in ((x * 255, r"\[.*, 2"), (2 * x - 1, r"\[-0")):
        for act in (model.log_posterior, lambda x: model.energy_terms(x, z)):
            with pytest.raises(
                ValueError, match=rf"x must lie in \[0, 1\] for a BernoulliLikelihood, got {shown}"
            ):
                act(bad)
    hidden = torch.where(torch.tensor([True, False, True]), x, 255)
    masked = LatentModel(prior, Masked(likelihood, torch.tensor([True, False, True])))
    masked.log_posterior(hidden)
    with pytest.raises(ValueError, match="BernoulliLikelihood"):
        masked.log_posterior(255 * x)


def test_samples_that_are_not_finite_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load("run/last.ckpt", weights_only=True)
    name = next(
        name for name in checkpoint["state_dict"] if name.startswith("model.likelihood.decoder")
    )
    checkpoint["state_dict"][name].fill_(3e38)  # finite, but not what the next layer makes of it
    torch.save(checkpoint, "huge.ckpt")
    for command, said in (
        (["sample", "huge.ckpt"], "samples x must be finite"),
        (["score", "huge.ckpt", "test"], ""),
    ):
        assert main([*command, "--out", "s.csv" if command[0] == "score" else "s.npz"]) == 1
        assert said in capsys.readouterr().err
    assert not list(folder.glob("s.*"))


def test_a_folder_of_images_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(30):
        path = tmp_path / "images" / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 8 * i, np.uint8)).save(path)
    config = make_config("mle", epochs=1)
    config["data"] = part("latent_ebm.data.Images", path="images", batch_size=10)
    decoder = part("latent_ebm.networks.ConvDecoder", dim=2, shape=[3, 8, 8], channels=2)
    config["model"]["init_args"]["model"]["init_args"]["likelihood"]["init_args"].update(
        decoder=decoder, scale=3.0
    )
    assert fit(config, tmp_path) == 0
    assert len(scores("images")) == 30
    found = pd.read_csv("scores.csv")["index"].tolist()
    assert found[:2] == ["a/00.png", "a/02.png"]
