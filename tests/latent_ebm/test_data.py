"""Data: batches, seeded disjoint splits, checked files, and the pinwheel whose density is
known.
"""

import gzip
import math
import os
import pickle
import struct
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from latent_ebm.data import (
    MNIST,
    Arrays,
    Batch,
    DataModule,
    Digits,
    Pinwheel,
    StackedDigits,
    TensorSet,
    Toy2D,
)
from latent_ebm.data import mnist as mnist_module
from latent_ebm.data.mnist import find_directory, read_idx
from latent_ebm.data.toy2d import TOYS

needs_mnist = pytest.mark.skipif(
    "LATENT_EBM_DATA" not in os.environ,
    reason="the environment variable LATENT_EBM_DATA names no folder with MNIST",
)


D = TypeVar("D", bound=DataModule)


def ready(data: D) -> D:
    data.setup()
    return data


def same(a: TensorSet, b: TensorSet) -> bool:
    return torch.equal(a.x, b.x) and torch.equal(a.label, b.label)


# ---------------------------------------------------------------------------------
# sets and loaders


def test_tensor_set_indexes_rows_and_batches() -> None:
    x = torch.arange(12.0, dtype=torch.float64).view(4, 3)
    rows = TensorSet(x, torch.tensor([5, 6, 7, 8], dtype=torch.int32))
    batch = rows.__getitems__([2, 0])
    assert torch.equal(batch.x, x[[2, 0]].float())
    assert (batch.condition["label"].tolist(), batch.index.tolist()) == ([7, 5], [2, 0])
    assert (batch.condition["label"].dtype, batch.index.dtype) == (torch.int64, torch.int64)
    row = rows[-1]
    assert torch.equal(row.x, x[3].float())
    assert (int(row.condition["label"]), int(row.index), len(rows)) == (8, 3, 4)
    assert TensorSet(x).label.tolist() == [-1] * 4
    assert same(pickle.loads(pickle.dumps(rows)), rows)  # noqa: S301


@pytest.mark.parametrize(
    ("x", "label", "message"),
    [
        (torch.zeros(3, 2, dtype=torch.int64), None, "x must be floating"),
        (torch.zeros(3), None, r"shape \(n >= 1, \*event\), got torch.float32 \(3,\)"),
        (torch.zeros(0, 2), None, "n >= 1"),
        (
            torch.tensor([[0.0], [torch.nan], [torch.inf]]),
            None,
            "2 of 3 rows are not, the first at index 1",
        ),
        (torch.full((1, 2), 1e300, dtype=torch.float64), None, "1 of 1 rows are not"),
        (
            torch.zeros(3, 2),
            torch.zeros(3),
            r"label must be integers of shape \(3,\), got torch.float32",
        ),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), r"got torch.int64 \(2,\)"),
    ],
)
def test_tensor_set_rejects(x: Tensor, label: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TensorSet(x, label)


def test_loaders_cover_the_sets() -> None:
    data = ready(Toy2D("rings", num=205, batch_size=20))
    batches = list(data.train_dataloader())
    assert [len(batch.x) for batch in batches] == [20] * 10
    index = torch.cat([batch.index for batch in batches])
    assert len(index.unique()) == 200
    assert not torch.equal(index, index.sort().values)
    for batch in batches:
        assert isinstance(batch, Batch)
        assert torch.equal(batch.x, data.train.x[batch.index])
        assert torch.equal(batch.condition["label"], data.train.label[batch.index])
    for loader, rows in (
        (data.val_dataloader(), data.val),
        (data.predict_dataloader(), data.test),
    ):
        assert torch.equal(torch.cat([batch.x for batch in loader]), rows.x)
    assert (
        len(list(ready(Toy2D(num=7, batch_size=20)).train_dataloader())) == 1
    )  # the only batch is not dropped


class Mean(LightningModule):
    """The least module: a learned mean."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(2))

    def training_step(self, batch: Batch) -> Tensor:
        assert isinstance(batch, Batch)
        return (batch.x - self.mean).square().mean()

    def validation_step(self, batch: Batch) -> None:
        assert batch.index.dtype == torch.int64

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*GPU available but not used"
)
def test_trainer_takes_a_data_module(tmp_path: Path) -> None:
    data = Toy2D(num=60, batch_size=20)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Mean(), datamodule=data)
    assert trainer.global_step == 3


@pytest.mark.parametrize(
    "build",
    [
        Digits,
        lambda **k: StackedDigits(num=500, **k),
        lambda **k: Toy2D(num=500, **k),
        lambda **k: Pinwheel(num_train=500, **k),
    ],
    ids=["digits", "stacked_digits", "toy2d", "pinwheel"],
)
def test_splits_follow_the_seed_and_leave_the_global_generator_alone(build) -> None:
    before = torch.get_rng_state()
    numpy_before = pickle.dumps(np.random.get_state())  # noqa: NPY002
    first, again, other = ready(build(seed=3)), ready(build(seed=3)), ready(build(seed=4))
    assert torch.equal(torch.get_rng_state(), before)
    assert pickle.dumps(np.random.get_state()) == numpy_before  # noqa: NPY002
    for name in ("train", "val", "test"):
        assert same(getattr(first, name), getattr(again, name))
        assert not same(getattr(first, name), getattr(other, name))
    rows = {tuple(row) for row in first.train.x.flatten(1).tolist()}
    for held in (first.val, first.test):
        assert not rows & {tuple(row) for row in held.x.flatten(1).tolist()}


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        Digits(batch_size=0)
    with pytest.raises(ValueError, match="seed must be an integer >= 0, got -1"):
        Digits(seed=-1)
    with pytest.raises(ValueError, match="name must be one of moons"):
        Toy2D("swiss_roll")
    with pytest.raises(ValueError, match="num_train must be an integer >= 1"):
        Pinwheel(num_train=0)


# ---------------------------------------------------------------------------------
# digits


def test_digits_are_scaled_and_stratified() -> None:
    data = ready(Digits())
    assert [len(rows) for rows in (data.train, data.val, data.test)] == [1297, 200, 300]
    assert data.train.x.shape[1:] == (1, 8, 8)
    assert (data.train.x.min(), data.train.x.max()) == (-1, 1)
    share = torch.bincount(data.train.label) / 1297
    for rows in (data.val, data.test):
        torch.testing.assert_close(
            torch.bincount(rows.label) / len(rows), share, rtol=0, atol=0.01
        )


def test_stacked_digits_spell_their_label() -> None:
    """Every channel is a digit of the same split, whose label is the hundreds, the tens or the
    units.
    """
    digits, data = ready(Digits()), ready(StackedDigits(2000))
    for one, three in (
        (digits.train, data.train),
        (digits.val, data.val),
        (digits.test, data.test),
    ):
        label_of = dict(
            zip(map(tuple, one.x.flatten(1).tolist()), one.label.tolist(), strict=True)
        )
        spelt = [[label_of[tuple(plane)] for plane in row] for row in three.x.flatten(2).tolist()]
        assert [100 * a + 10 * b + c for a, b, c in spelt] == three.label.tolist()
    assert (len(data.train), len(data.test)) == (2000, 400)
    assert len(data.train.label.unique()) == pytest.approx(1000 * (1 - math.exp(-2)), abs=40)


# ---------------------------------------------------------------------------------
# mnist


def idx_bytes(array: np.ndarray) -> bytes:
    return (
        b"\x00\x00\x08"
        + struct.pack(f">B{array.ndim}I", array.ndim, *array.shape)
        + array.tobytes()
    )


def test_idx_files_plain_and_gzipped(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "plain").write_bytes(idx_bytes(array))
    (tmp_path / "zipped.gz").write_bytes(gzip.compress(idx_bytes(array)))
    for name in ("plain", "zipped.gz"):
        assert np.array_equal(read_idx(tmp_path / name), array)


WHOLE = idx_bytes(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty", b"", "must start with the IDX magic 00 00 08, got nothing"),
        ("magic", b"\x00\x00\x0d" + WHOLE[3:], "magic 00 00 08, got 00 00 0d"),
        ("header", WHOLE[:9], "must hold a header of 12 bytes, got 9"),
        ("short", WHOLE[:-1], r"must hold 18 bytes for shape \(2, 3\), got 17"),
        ("long", WHOLE + b"0", "must hold 18 bytes .* got 19"),
        ("short.gz", gzip.compress(WHOLE, mtime=0)[:-9], "must be a whole gzip file"),
        ("plain.gz", WHOLE, "must be a whole gzip file"),
    ],
)
def test_damaged_idx_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / name)


def test_a_bomb_of_an_idx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist_module, "MAX_BYTES", 1000)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(ValueError, match="at most 1,000 bytes when unpacked"):
        read_idx(tmp_path / "bomb.gz")


def small_mnist(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in mnist_module.DIGESTS:
        array = np.zeros((2, 28, 28) if "images" in name else (2,), np.uint8)
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    return folder


def test_mnist_is_found_by_argument_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LATENT_EBM_DATA", raising=False)
    folder = small_mnist(tmp_path / "data" / "mnist")
    assert find_directory(None) is None
    assert find_directory(str(folder)) == folder
    for named in (folder, folder.parent):
        monkeypatch.setenv("LATENT_EBM_DATA", str(named))
        assert find_directory(None) == folder
    with pytest.raises(
        FileNotFoundError, match="directory must name a folder with train-images-idx3-ubyte"
    ):
        MNIST(str(tmp_path)).setup()
    monkeypatch.setenv("LATENT_EBM_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="environment variable LATENT_EBM_DATA must name"):
        MNIST().setup()


def test_mnist_checks_the_content(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte must have SHA-256 741c.*damaged, or not MNIST"
    ):
        MNIST(str(small_mnist(tmp_path / "mnist"))).setup()


def test_mnist_offline_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route")

    monkeypatch.delenv("LATENT_EBM_DATA", raising=False)
    monkeypatch.setattr(mnist_module, "fetch_openml", offline)
    with pytest.raises(RuntimeError, match="put the four IDX files into a folder and name it"):
        MNIST().setup()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heldout": 10}, "heldout must be a digit 0 to 9 or None, got 10"),
        ({"split": "mixed"}, "split must be standard or pooled, got 'mixed'"),
        ({"num_val": 0}, "num_val must be an integer >= 1, got 0"),
        ({"num_train": 0}, "num_train must be an integer >= 1, got 0"),
    ],
)
def test_mnist_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MNIST(**arguments)


@pytest.mark.parametrize("heldout", [None, 4])
@pytest.mark.parametrize("split", ["standard", "pooled"])
def test_mnist_splits(heldout: int | None, split: str) -> None:
    label = torch.arange(70_000) % 10
    data = MNIST(heldout=heldout, split=split, num_val=500, seed=1)
    train, val, test = data.split_indices(label)
    assert len(torch.cat([train, val, test]).unique()) == len(train) + len(val) + len(test)
    for part, again in zip((train, val, test), data.split_indices(label), strict=True):
        assert torch.equal(part, again)
    other = MNIST(heldout=heldout, split=split, num_val=500, seed=2).split_indices(label)
    assert not torch.equal(val, other[1])
    normal = 70_000 if heldout is None else 63_000
    if split == "standard":
        assert torch.equal(test, torch.arange(60_000, 70_000))
        assert len(train) + len(val) == (60_000 if heldout is None else 54_000)
    else:
        assert len(train) + len(val) == 0.8 * normal
        assert len(test) == 0.2 * normal + (70_000 - normal)
    assert len(val) == 500
    if heldout is not None:
        assert not data.anomaly(label[torch.cat([train, val])]).any()
        prevalence = 0.1 if split == "standard" else 7000 / (7000 + 12_600)
        assert data.anomaly(label[test]).float().mean().item() == pytest.approx(prevalence)


def test_mnist_subsets_and_anomaly_need_arguments() -> None:
    label = torch.arange(70_000) % 10
    assert [len(part) for part in MNIST(num_train=300, num_val=200).split_indices(label)] == [
        300,
        200,
        10_000,
    ]
    with pytest.raises(ValueError, match=r"at most the 60000 training normals.*got 59999 \+ 2"):
        MNIST(num_train=59_999, num_val=2).split_indices(label)
    with pytest.raises(ValueError, match="heldout must be a digit"):
        MNIST().anomaly(label)


@needs_mnist
def test_real_mnist() -> None:
    data = MNIST(heldout=4, num_train=2000, num_val=1000)
    data.setup()
    assert [len(rows) for rows in (data.train, data.val, data.test)] == [2000, 1000, 10_000]
    assert data.train.x.shape[1:] == (1, 28, 28)
    assert (data.test.x.min(), data.test.x.max()) == (-1, 1)
    assert torch.bincount(data.test.label).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert not data.anomaly(data.train.label).any()
    pooled = MNIST(heldout=4, split="pooled", num_train=100)
    pooled.setup()
    assert int(pooled.anomaly(pooled.test.label).sum()) == 6824
    assert pooled.anomaly(pooled.test.label).float().mean().item() == pytest.approx(
        0.35, abs=0.005
    )


# ---------------------------------------------------------------------------------
# toys, pinwheel


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_bounded_and_labelled(name: str) -> None:
    data = ready(Toy2D(name, num=2000))
    assert [len(rows) for rows in (data.train, data.val, data.test)] == [2000, 400, 400]
    assert data.train.x.shape == (2000, 2)
    assert data.train.x.abs().max() < 3.5
    share = torch.bincount(data.train.label) / 2000
    torch.testing.assert_close(share, torch.full_like(share, 1 / len(share)), rtol=0, atol=0.04)


def test_checkerboard_fills_the_dark_squares() -> None:
    x, _ = TOYS["checkerboard"](4000, torch.Generator().manual_seed(0))
    cell = (x + 2).floor().long()
    assert set(cell.unique().tolist()) == {0, 1, 2, 3}
    assert torch.equal(cell.sum(1) % 2, torch.zeros(len(x), dtype=torch.int64))


def grid(per_side: int, half: float) -> tuple[Tensor, float]:
    side = torch.linspace(-half, half, per_side + 1, dtype=torch.float64)
    middle = (side[1:] + side[:-1]) / 2
    return torch.cartesian_prod(middle, middle), float(side[1] - side[0]) ** 2


def test_pinwheel_density_integrates_to_one() -> None:
    points, area = grid(800, 7.0)
    log_prob = Pinwheel().prior_log_prob(points)
    assert (log_prob.exp().sum() * area).item() == pytest.approx(1, abs=1e-6)


def test_pinwheel_density_is_that_of_its_draws() -> None:
    data, num, bins = Pinwheel(), 200_000, 28
    draws = data.sample_prior(num, generator=torch.Generator().manual_seed(0))
    points, area = grid(bins * 20, 7.0)
    mass = (data.prior_log_prob(points).exp() * area).view(bins, 20, bins, 20).sum((1, 3))
    edges = torch.linspace(-7, 7, bins + 1)
    count = torch.histogramdd(draws, [edges, edges]).hist
    expected = num * mass
    kept = expected > 20
    chi2 = ((count[kept] - expected[kept]) ** 2 / expected[kept]).sum().item()
    degrees = int(kept.sum())
    assert abs(chi2 - degrees) < 5 * (2 * degrees) ** 0.5


def test_pinwheel_density_has_a_gradient_and_keeps_dtype() -> None:
    z = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    data = Pinwheel()
    assert data.prior_log_prob(z).dtype == torch.float64
    assert torch.autograd.gradcheck(data.prior_log_prob, z)


def test_pinwheel_truth_is_frozen_and_shared_by_seeds() -> None:
    first, second, other = (
        ready(Pinwheel(500, seed=0)),
        ready(Pinwheel(500, seed=1)),
        Pinwheel(500, decoder_seed=1),
    )
    assert not any(p.requires_grad for p in first.decoder.parameters())
    z = first.sample_prior(400, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.decoder(z), second.decoder(z))
    assert not torch.equal(first.decoder(z), other.decoder(z))
    weights = torch.cat([p.flatten() for p in first.decoder.parameters() if p.ndim == 2])
    biases = torch.cat([p for p in first.decoder.parameters() if p.ndim == 1])
    assert weights.std().item() == pytest.approx(0.2, rel=0.05)
    assert biases.std().item() == pytest.approx(0.1, rel=0.15)
    assert first.train.x.shape == (500, 2)
    assert set(first.train.label.tolist()) == {0, 1}


# ---------------------------------------------------------------------------------
# arrays


def test_arrays_standardise_on_the_training_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(50, [3, 1e-3, 1], (200, 3))
    x[:, 2] = 7
    np.savez(tmp_path / "rows.npz", X=x, y=np.arange(200))
    data = ready(Arrays(str(tmp_path / "rows.npz"), seed=2))
    assert [len(rows) for rows in (data.train, data.val, data.test)] == [140, 20, 40]
    torch.testing.assert_close(data.train.x.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        data.train.x.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), rtol=0, atol=1e-5
    )
    for rows in (data.train, data.val, data.test):
        back = rows.x.double() * data.scale + data.mean
        torch.testing.assert_close(back, torch.from_numpy(x)[rows.label], rtol=0, atol=1e-4)
    everything = torch.cat([data.train.label, data.val.label, data.test.label])
    assert torch.equal(everything.sort().values, torch.arange(200))
    assert same(data.val, ready(Arrays(str(tmp_path / "rows.npz"), seed=2)).val)
    assert not same(data.val, ready(Arrays(str(tmp_path / "rows.npz"), seed=3)).val)


def test_arrays_of_images_and_other_keys(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((10, 1, 4, 4), np.uint8))
    data = ready(Arrays(str(tmp_path / "images.npy"), standardize=False))
    assert data.train.x.shape == (7, 1, 4, 4)
    assert data.train.label.tolist() == [-1] * 7
    np.savez(tmp_path / "other.npz", rows=np.ones((5, 2)), X=np.zeros((9, 3)))
    assert ready(
        Arrays(str(tmp_path / "other.npz"), key="rows", standardize=False)
    ).train.x.shape == (3, 2)


@pytest.mark.parametrize("header", ["", "a,b\n"])
def test_csv(tmp_path: Path, header: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(header + "1,2\n3,4.5\n\n-5,6e1\n")
    data = ready(Arrays(str(path), standardize=False))
    everything = torch.cat([data.train.x, data.val.x, data.test.x])
    assert sorted(everything.tolist()) == [[-5, 60], [1, 2], [3, 4.5]]


def test_csv_label_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("\ufeff0, label ,1\n1,7,2\n3,8,4\n5,9,6\n", encoding="utf-8")
    data = ready(Arrays(str(path), standardize=False))
    rows = {int(s.label[0]): s.x[0].tolist() for s in (data.train, data.val, data.test)}
    assert rows == {7: [1, 2], 8: [3, 4], 9: [5, 6]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n3,x\n", "line 3, column 'b' must be a number, got 'x'"),
        ("1,2\n3,\n", "got 1 in 1 of 2 rows, the first in line 2, column 'column 2'"),
        (
            "1,word\n3,4\n",
            "the first line .* has words and numbers, 'word' and '1': --header must be",
        ),
        ("1,2\n3,4,5\n", "must hold a table of text: expected 2 fields in line 2, saw 3"),
        (
            "1,2\n\nnan,4\n5,inf\n",
            "must be finite, got 1 rows that are not, the first is line 4, column 'column 2'",
        ),
        ("a,label\n1,0.5\n", "labels of .* must be 1 integers, or words .* got float64"),
        ("a,b\n", r"must hold numbers of shape \(rows, columns\), got float64 of shape \(0, 2\)"),
        ("", "it has no lines"),
        ("1,2\n3,4\n", "must hold at least 3 rows"),
    ],
)
def test_csv_errors(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        Arrays(str(path)).setup()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"a": np.zeros((3, 2)), "b": np.zeros(3)},
            r"key must be one of the arrays of .*, a, b; got 'X'",
        ),
        (
            {"X": np.zeros(5)},
            r"must hold numbers of shape \(rows, columns\), got float64 of shape \(5,\)",
        ),
        ({"X": np.array([["1", "x"]] * 4)}, "must hold numbers .* got <U1"),
        ({"X": np.array([[1, None]] * 4)}, "must hold plain arrays, not pickled or damaged ones"),
        ({"X": np.full((4, 2), np.nan)}, "got 8 in 4 of 4 rows, the first in row 0, column 1"),
        (
            {"X": np.zeros((4, 2)), "y": np.zeros(3)},
            r"must be 4 integers, or words .* got float64 of shape \(3,\)",
        ),
    ],
)
def test_npz_errors(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "rows.npz", **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=message):
        Arrays(str(tmp_path / "rows.npz")).setup()


@pytest.mark.parametrize("name", ["rows.npz", "rows.npy"])
def test_damaged_numpy_files(tmp_path: Path, name: str) -> None:
    for content in (b"", b"PK\x03\x04 nothing", b"\x93NUMPY\x01\x00", pickle.dumps([1, 2])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            ValueError, match="must hold plain arrays, not pickled or damaged ones"
        ):
            Arrays(str(tmp_path / name)).setup()


def test_arrays_arguments(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"path must name a file, but there is no '.*none.csv'"
    ):
        Arrays(str(tmp_path / "none.csv")).setup()
    with pytest.raises(
        ValueError,
        match=r"path must end in \.npz, \.npy, \.csv, \.tsv, \.parquet, got 'rows.xlsx'",
    ):
        Arrays("rows.xlsx").setup()
    with pytest.raises(ValueError, match="val_fraction must be between 0 and 1, got 0"):
        Arrays("rows.csv", val_fraction=0)
    with pytest.raises(ValueError, match=r"below 1, got 0.5 \+ 0.5"):
        Arrays("rows.csv", val_fraction=0.5, test_fraction=0.5)
