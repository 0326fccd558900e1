"""A detector together with what it takes to say how unusual a new row is: scores of normal rows
that it has not seen.

Half of the training rows are held out, at most a thousand or as many as let a single new row be
selected. With ``--folds`` every row is held out once, by a detector of its own fold.
"""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array
from torch import nn
from tqdm import tqdm

from latent_ebm.cli.tables import Table
from latent_ebm.detection import (
    ConformalCalibrator,
    CrossConformalCalibrator,
    LatentEBMDetector,
)
from latent_ebm.detection.files import FILE_NAME, load_detector, save_detector
from latent_ebm.detection.findings import Findings, order_warnings, shift_warnings
from latent_ebm.detection.selection import exact, rows_to_hold_out
from latent_ebm.foreign import reading
from samplers.checks import check_kind

MAX_HELD_OUT, BLOCK = 1000, 1000
ONLY_TO_FIT = (
    "save",
    "energy",
    "folds",
    "max_steps",
    "encoder",
)  # options that a saved detector has no use for

Array = NDArray[np.float64]


class Trained(NamedTuple):
    """A detector, the scores (m,) of normal rows that it has not seen, and how the rows it scores
    must look.

    ``facts`` and ``warnings`` are for the report; ``folds`` gives p-values where there are several
    detectors, of which ``detector`` is the one that explains.
    """

    detector: LatentEBMDetector
    normal_scores: Array
    columns: list[str]
    has_header: bool
    facts: dict[str, Any]
    warnings: list[str]
    folds: CrossConformalCalibrator | None = None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(C, H, W) if the rows are images."""
        return None if self.detector.image_shape is None else tuple(self.detector.image_shape)

    @property
    def noun(self) -> str:
        """What the rows are."""
        return "rows" if self.shape is None else "images"


class ScoresAsRows(BaseEstimator):
    """A detector of rows (n, 1) that are scores already, so that these are computed once."""

    def fit(self, X: Array, y: None = None) -> "ScoresAsRows":
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def score_samples(self, X: Array) -> Array:
        return X[:, 0]


def train(args: argparse.Namespace, table: Table, num_new: int) -> Trained:
    """Fit a detector to some rows of ``table`` and score the others, with ``num_new`` new rows in
    view.
    """
    num = len(table.x)
    if num < 4:
        raise ValueError(f"{args.train} must hold at least 4 rows, got {num}")
    if args.folds is not None and not 2 <= args.folds <= num:
        raise ValueError(
            f"--folds must be between 2 and the {num} rows of {args.train}, got {args.folds}"
        )
    for option in ("max_steps", "encoder", "size"):
        if table.shape is None and getattr(args, option) is not None:
            raise ValueError(
                f"--{option.replace('_', '-')} must be left out for tables, got "
                f"{getattr(args, option)}"
            )
    detector = LatentEBMDetector(
        args.energy or "joint",
        image_shape=table.shape,
        max_steps=args.max_steps or 1000,
        encoder=args.encoder and load_encoder(args.encoder),
        random_state=args.seed,
        verbose=True,
    )
    fit = fit_halves if args.folds is None else fit_folds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and loggers
        detector, scores, folds = fit(args, detector, table, num_new)
    found = order_warnings(table.x, "rows" if table.shape is None else "images")
    return Trained(
        detector, scores, table.columns, table.has_header, {"Seed": args.seed}, found, folds
    )


def fit_halves(
    args: argparse.Namespace, detector: LatentEBMDetector, table: Table, num_new: int
) -> tuple[LatentEBMDetector, Array, None]:
    """The fitted detector, and scores of the rows held out."""
    wanted = max(MAX_HELD_OUT, rows_to_hold_out(num_new, args.alpha))
    num_held_out = min(len(table.x) // 2, wanted)
    check_alpha(args.alpha, num_held_out)
    split = train_test_split(table.x, test_size=num_held_out, random_state=args.seed)
    fitted, held_out = map(np.asarray, split)
    say(f"fitting {len(fitted)} of {table.size}, {len(held_out)} are held out")
    detector.fit(fitted)
    return detector, scores_of(detector, held_out), None


def fit_folds(
    args: argparse.Namespace, detector: LatentEBMDetector, table: Table, num_new: int
) -> tuple[LatentEBMDetector, Array, CrossConformalCalibrator]:
    """The first of the fitted detectors, scores of all rows, and what compares new rows with
    them.
    """
    check_alpha(args.alpha, len(table.x))
    say(f"fitting {table.size} {args.folds} times, each time without one of {args.folds} parts")
    folds = CrossConformalCalibrator(detector, args.folds, args.seed).fit(table.x)
    scores = np.concatenate([calibrator.scores_ for calibrator in folds.calibrators_])
    return folds.calibrators_[0].detector_, scores, folds


def load_encoder(path: str) -> nn.Module:
    """The encoder of a checkpoint. Raises ``ValueError`` if it has none."""
    from latent_ebm.cli.checkpoints import load_rule

    rule, _ = load_rule(path)
    encoder = getattr(rule, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ValueError(
            "--encoder must name a checkpoint with an encoder, got one of a "
            f"{type(rule).__name__}: {path}"
        )
    return encoder


def load(args: argparse.Namespace) -> Trained:
    """What ``save`` wrote."""
    for option in ONLY_TO_FIT:
        if getattr(args, option) is not None:
            name = option.replace("_", "-")
            raise ValueError(
                f"--{name} must be left out with a saved detector, got {getattr(args, option)}"
            )
    detector, kept = load_detector(LatentEBMDetector, args.train)
    with reading(args.train, "a detector as detect --save wrote it"):
        if "normal_scores" not in kept:
            raise ValueError("it was saved in Python, without scores of held-out normal rows")
        trained = Trained(detector, np.array(kept.pop("normal_scores"), dtype=np.float64), **kept)
        check_array(trained.normal_scores, ensure_2d=False)
        check_notes(trained)
    check_alpha(args.alpha, len(trained.normal_scores))
    return trained


def check_notes(trained: Trained) -> None:
    """Raise ``ValueError`` for what no detector is saved with."""
    texts = {"columns": trained.columns, "warnings": trained.warnings}
    for name, value in texts.items():
        if not (isinstance(value, list) and all(isinstance(text, str) for text in value)):
            raise ValueError(f"{name} must be a list of texts, got {value!r}")
    check_kind("notes", bool, has_header=trained.has_header)
    check_kind("notes", dict, facts=trained.facts)
    if trained.folds is not None:
        raise ValueError(f"folds must be null, got {trained.folds!r}")


def save(trained: Trained, folder: Path) -> None:
    """Write the detector, and what it takes to use it, to ``folder``."""
    notes = {**trained._asdict(), "normal_scores": trained.normal_scores.tolist()}
    save_detector(notes.pop("detector"), folder, notes)


def is_saved(path: str) -> bool:
    """Whether ``path`` is a folder with a detector in it."""
    return (Path(path).expanduser() / FILE_NAME).is_file()


def check_alpha(alpha: float, num: int) -> None:
    """Raise ``ValueError`` if nothing can be found at the level ``alpha`` with ``num`` rows held
    out.
    """
    if exact(alpha) * (num + 1) < 1:
        raise ValueError(
            f"--alpha must be at least {1 / (num + 1):.3g} with {num} normal rows held out, got "
            f"{alpha}; "
            f"more training rows allow a smaller one"
        )


def scores_of(detector: LatentEBMDetector, x: Array) -> Array:
    """Scores (n,) of rows ``x`` (n, d), with a progress bar."""
    blocks = [x[start : start + BLOCK] for start in range(0, len(x), BLOCK)]
    bar = tqdm(blocks, desc="scoring", unit="block", disable=len(blocks) < 2)
    return np.concatenate([detector.score_samples(block) for block in bar])


def judge(trained: Trained, x: Array, alpha: float) -> Findings:
    """How unusual new rows ``x`` (n, d) are, and which stand out at the level ``alpha``."""
    known = ConformalCalibrator(ScoresAsRows()).calibrate(trained.normal_scores[:, None])
    if trained.folds is None:
        scores = scores_of(trained.detector, x)
        calibrator, rows = known, scores[:, None]
    else:
        scores = trained.folds.score_samples(x)
        calibrator, rows = trained.folds, x
    findings = Findings(
        scores,
        calibrator.p_values(rows),
        calibrator.select(rows, alpha),
        trained.normal_scores,
        known.infer_threshold(alpha),
        alpha,
        num_folds=trained.folds and trained.folds.num_folds,
    )
    found = (*trained.warnings, *shift_warnings(findings, trained.noun))
    return findings._replace(warnings=found)


def say(text: str) -> None:
    """A line on progress."""
    print(f"latent-ebm: {text}", file=sys.stderr)
