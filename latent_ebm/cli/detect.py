"""``latent-ebm detect``: from two files to scores, p-values and a page that explains them.

``calibrated`` fits the detector and computes the p-values.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latent_ebm.artefacts.folders import check_place
from latent_ebm.cli.calibrated import Fitting, Trained, is_saved, judge, load, save, say, train
from latent_ebm.cli.errors import WrongUsage
from latent_ebm.cli.files import check_apart, check_folder, check_output, real
from latent_ebm.cli.tables import Table, check_alike, read_table
from latent_ebm.detection.findings import Findings
from latent_ebm.detection.report import make_report
from latent_ebm.files import Reader
from latent_ebm.writing import atomic_path


@dataclass(frozen=True)
class Job:
    """What ``latent-ebm detect`` is asked to do; the fields are its options.

    Args:
        train: file or folder of normal rows, or the folder of a saved detector.
        score: file or folder of the rows to judge.
        out: the table to write.
        report: the page to write, None for none.
        save: folder to keep the detector in, None for none.
        alpha: level of outliers and false alarms, in (0, 1).
        seed: seed of all random numbers.
        reader: reads files of rows.
        image_shape: (C, H, W) of rows that are flattened images.
        size: side in pixels that the images of a folder are resized to.
        fitting: how the detector is fitted.
    """

    train: str
    score: str
    out: str
    report: str | None
    save: str | None
    alpha: float
    seed: int
    reader: Reader
    image_shape: tuple[int, ...] | None
    size: int | None
    fitting: Fitting


def run_detect(job: Job) -> None:
    """Do the ``job``: compute everything, then write it."""
    try:
        trained, new, findings, html = analyse(job)
    except (ValueError, OSError, ImportError) as error:
        raise WrongUsage(str(error)) from error
    if job.save is not None:
        save(trained, Path(job.save))
    write_findings(Path(job.out), new.rows, findings)
    if job.report is not None:
        with atomic_path(job.report) as temporary:
            temporary.write_text(html, encoding="utf-8")
    written = ", ".join(name for name in (job.out, job.report, job.save) if name)
    print(f"{summary(findings)}: {written}")


def analyse(job: Job) -> tuple[Trained, Table, Findings, str]:
    """The detector, the new rows, what is unusual about them, and the report. Raises
    ``ValueError``, ``OSError`` or ``ImportError`` for files and options that cannot be used.
    """
    check_places(job)
    check_options(job)
    trained, new = prepare(job)
    findings = judge(trained, new.x, job.alpha)
    for warning in findings.warnings:
        say(f"warning: {warning}")
    asked = {"Columns left out as asked": ", ".join(job.reader.drop)} if job.reader.drop else {}
    facts = {**trained.facts, **facts_of("New data", new), **asked, "Level (alpha)": job.alpha}
    columns = new.columns if new.has_header else trained.columns
    html = ""
    if job.report is not None:
        html = make_report(trained.detector, new.x, findings, columns, new.called, facts)
    return trained, new, findings, html


def prepare(job: Job) -> tuple[Trained, Table]:
    """A detector, trained or loaded, and the new rows."""
    if is_saved(job.train):
        refuse("with a saved detector", save=job.save, **job.fitting._asdict())
        trained = load(job.train, job.alpha)
        return trained, read(job.score, job, trained)
    table = read(job.train, job)
    new = read(job.score, job, table)
    if table.shape is None:
        refuse(
            "for tables",
            max_steps=job.fitting.max_steps,
            encoder=job.fitting.encoder,
            size=job.size,
        )
    trained = train(table, job.fitting, job.alpha, job.seed, len(new.x))
    facts = {**facts_of("Training data", table), **trained.facts}
    return trained._replace(facts=facts), new


def check_options(job: Job) -> None:
    """Raise ``ValueError`` if the detector is to be kept, but cannot be."""
    if job.fitting.folds is not None:
        refuse("with --folds, which fits several detectors", save=job.save)
    if job.fitting.encoder is not None:
        refuse("with --encoder, which is no part of a saved detector", save=job.save)


def refuse(when: str, **options: object) -> None:
    """Raise ``ValueError`` if one of ``options`` is given, for it must be left out ``when``."""
    for name, value in options.items():
        if value is not None:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} must be left out {when}, got {value}")


def check_places(job: Job) -> None:
    """Raise ``ValueError`` or ``OSError`` unless all outputs can be written and none of them
    would replace an input.
    """
    outputs = [check_output(job.out, (".csv",))]
    if job.report is not None:
        outputs.append(check_output(job.report, (".html",), "--report"))
    if job.save is not None:
        outputs.append(check_save(job.save, outputs))
    encoder = job.fitting.encoder
    check_apart(outputs, [job.train, job.score, *([] if encoder is None else [encoder])])


def check_save(name: str, others: Sequence[Path]) -> Path:
    """``name`` as the folder of a detector: new, or of a saved detector, and of no other
    result.
    """
    folder = check_folder(name, "--save")
    try:
        check_place(folder)
    except FileExistsError as error:
        raise ValueError(f"--save must name another folder: {error}") from error
    if any(real(folder) == real(path).parent for path in others):
        raise ValueError(
            f"--save must name a folder of its own, got {name!r}, where other results go"
        )
    return folder


def read(name: str, job: Job, known: Table | Trained | None = None) -> Table:
    """The rows or images of the file or folder ``name``, which must be of the same kind as those
    that are ``known`` already.
    """
    features = known.columns if known is not None and known.has_header else None
    in_colour = known is not None and known.shape is not None and known.shape[0] == 3
    table = read_table(
        Path(name),
        job.image_shape,
        job.reader,
        job.size,
        features,
        in_colour or None,  # None: decided by the images, which may be grey in either case
    )
    if known is not None:
        check_alike(table, known.columns, known.shape)
    for note in table.notes:
        say(f"{name}: {note}")
    return table


def facts_of(what: str, table: Table) -> dict[str, str]:
    """Where the rows of ``table``, called ``what``, come from, and what was left out of them."""
    notes = {f"{what}, as read": "; ".join(table.notes)} if table.notes else {}
    return {what: f"{table.path}: {table.size}", **notes}


def write_findings(path: Path, rows: list[str], findings: Findings) -> None:
    """Write a table with one line per row."""
    outlier = findings.p_values <= findings.alpha
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "score", "p_value", "outlier", "selected"])
        for row, score, p, *flags in zip(
            rows, findings.scores, findings.p_values, outlier, findings.selected, strict=True
        ):
            writer.writerow([row, f"{score:.9g}", f"{p:.6g}", *map(int, flags)])


def summary(findings: Findings) -> str:
    """What was found, and how much could have been found, on one line."""
    found, beyond = findings.selected.sum(), findings.beyond.sum()
    text = f"{found} of {len(findings.scores)} stand out"
    if found or findings.smallest == 1:
        return text
    lie = (
        f", {beyond} {'lies' if beyond == 1 else 'lie'} beyond every normal one" if beyond else ""
    )
    folds = "" if findings.num_folds else "; --folds 10 holds out every normal one"
    return (
        f"{text}{lie} (with {len(findings.normal_scores)} normal ones held out, "
        f"{findings.smallest} or more must lie "
        f"there before any is selected, and with {findings.enough} a single one may be{folds})"
    )
