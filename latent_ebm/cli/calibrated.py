"""A detector with all that is needed to say how unusual a new row is: the scores of normal rows
that the detector has not seen.

Half of the training rows are held out, but no more than a thousand, or than are needed to select
a single new row. With ``--folds``, every row is held out once.
"""

import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array
from torch import from_numpy, nn
from tqdm import tqdm

from latent_ebm.artefacts.folders import config_path
from latent_ebm.artefacts.folders import read as read_module
from latent_ebm.cli.tables import Table
from latent_ebm.detection import (
    ConformalCalibrator,
    CrossConformalCalibrator,
    LatentEBMDetector,
)
from latent_ebm.detection.checks import Energy
from latent_ebm.detection.files import load_detector, save_detector
from latent_ebm.detection.findings import Findings, order_warnings, shift_warnings
from latent_ebm.detection.selection import exact, rows_to_hold_out
from latent_ebm.foreign import reading
from samplers.checks import check_kind

MAX_HELD_OUT = 1000
BLOCK = 1000  # rows that are scored between two moves of a progress bar
Array = NDArray[np.float64]


class Fitting(NamedTuple):
    """How a detector is fitted: None leaves the choice to the detector.

    ``energy``, ``max_steps`` and the checkpoint of an ``encoder`` are arguments of
    ``LatentEBMDetector``; ``folds`` is the number of fits that hold out every row once.
    """

    energy: Energy | None
    folds: int | None
    max_steps: int | None
    encoder: str | None


class Trained(NamedTuple):
    """A detector, the scores (m,) of normal rows that it has not seen, and the columns of its
    rows.

    ``facts`` and ``warnings`` are for the report. With several detectors, one per fold, ``folds``
    gives the p-values, and ``detector`` is the one that explains.
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
        """What the rows are called."""
        return "rows" if self.shape is None else "images"


class ScoresAsRows(BaseEstimator):
    """A detector of rows (n, 1) that are scores already, so that scores are computed only
    once.
    """

    def fit(self, X: Array, y: None = None) -> "ScoresAsRows":
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def score_samples(self, X: Array) -> Array:
        return X[:, 0]


def train(table: Table, fitting: Fitting, alpha: float, seed: int, num_new: int) -> Trained:
    """Fit a detector to some rows of ``table`` and score the others, to judge ``num_new`` new rows
    at the level ``alpha``.
    """
    num = len(table.x)
    if num < 4:
        raise ValueError(f"{table.path} must hold at least 4 rows, got {num}")
    if fitting.folds is not None and not 2 <= fitting.folds <= num:
        raise ValueError(
            f"--folds must be between 2 and the {num} rows of {table.path}, got {fitting.folds}"
        )
    detector = LatentEBMDetector(
        fitting.energy or "joint",
        image_shape=table.shape,
        max_steps=fitting.max_steps or 1000,
        encoder=None if fitting.encoder is None else load_encoder(fitting.encoder),
        random_state=seed,
        verbose=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and loggers
        if fitting.folds is None:
            num_held_out = min(num // 2, max(MAX_HELD_OUT, rows_to_hold_out(num_new, alpha)))
            check_alpha(alpha, num_held_out)
            folds, scores = None, fit_part(detector, table, num_held_out, seed)
        else:
            check_alpha(alpha, num)
            folds, scores = fit_folds(detector, table, fitting.folds, seed)
            detector = folds.calibrators_[0].detector_
    found = order_warnings(table.x, "rows" if table.shape is None else "images")
    return Trained(detector, scores, table.columns, table.has_header, {"Seed": seed}, found, folds)


def fit_part(detector: LatentEBMDetector, table: Table, num_held_out: int, seed: int) -> Array:
    """Fit ``detector`` to the rows that are not held out, and return the scores of those that
    are.
    """
    split = train_test_split(table.x, test_size=num_held_out, random_state=seed)
    fitted, held_out = map(np.asarray, split)
    say(f"fitting {len(fitted)} of {table.size}, {len(held_out)} are held out")
    return scores_of(detector.fit(fitted), held_out)


def fit_folds(
    detector: LatentEBMDetector, table: Table, num_folds: int, seed: int
) -> tuple[CrossConformalCalibrator, Array]:
    """Detectors like ``detector``, one per fold, and the scores of all rows, each by the detector
    that did not see it.
    """
    say(f"fitting {table.size} {num_folds} times, each time without one of {num_folds} parts")
    folds = CrossConformalCalibrator(detector, num_folds, seed).fit(table.x)
    return folds, np.concatenate([calibrator.scores_ for calibrator in folds.calibrators_])


def load_encoder(path: str) -> nn.Module:
    """The encoder of a checkpoint. Raises ``ValueError`` if it has none."""
    from latent_ebm.cli.checkpoints import load_rule

    if is_saved(path):
        return read_module(path)
    rule, _ = load_rule(path)
    encoder = getattr(rule, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ValueError(
            "--encoder must name a checkpoint with an encoder, got one of a "
            f"{type(rule).__name__}: {path}"
        )
    return encoder


def load(folder: str, alpha: float) -> Trained:
    """The detector that ``save`` wrote, to judge rows at the level ``alpha``."""
    detector, kept = load_detector(LatentEBMDetector, folder)
    with reading(folder, "a detector as detect --save wrote it"):
        if "normal_scores" not in kept:
            raise ValueError("it was saved in Python, without scores of held-out normal rows")
        trained = Trained(
            detector, np.asarray(kept.pop("normal_scores"), dtype=np.float64), **kept
        )
        check_array(trained.normal_scores, ensure_2d=False)
        check_notes(trained)
    check_alpha(alpha, len(trained.normal_scores))
    return trained


def check_notes(trained: Trained) -> None:
    """Raise ``ValueError`` for notes of another kind than ``save`` writes."""
    texts = {"columns": trained.columns, "warnings": trained.warnings}
    for name, value in texts.items():
        if not (isinstance(value, list) and all(isinstance(text, str) for text in value)):
            raise ValueError(f"{name} must be a list of texts, got {value!r}")
    check_kind("notes", bool, has_header=trained.has_header)
    check_kind("notes", dict, facts=trained.facts)
    if trained.folds is not None:
        raise ValueError(f"folds must be null, got {trained.folds!r}")


def save(trained: Trained, folder: Path) -> None:
    """Write the detector, and all that is needed to use it, to ``folder``."""
    notes = {**trained._asdict(), "normal_scores": from_numpy(trained.normal_scores)}
    del notes["detector"]
    save_detector(trained.detector, folder, notes)


def is_saved(path: str) -> bool:
    """Whether ``path`` is a folder with a detector in it."""
    return config_path(path).is_file()


def check_alpha(alpha: float, num: int) -> None:
    """Raise ``ValueError`` if no row can be an outlier at the level ``alpha`` with ``num`` rows
    held out.
    """
    if exact(alpha) * (num + 1) < 1:
        raise ValueError(
            f"--alpha must be at least {1 / (num + 1):.3g} with {num} normal rows held out, got "
            f"{alpha}; more training rows allow a smaller one"
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
    """Print a line about progress."""
    print(f"latent-ebm: {text}", file=sys.stderr)
