"""A page about the unusual rows that a detector found, for a reader who has never heard of a
density.

The page is one HTML file with all figures and images inside; it runs no script and fetches
nothing. All text that comes from the data (names of columns, files, rows) is escaped.
"""

import base64
import io
from collections.abc import Sequence
from importlib import metadata, resources
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, StrictUndefined, Template
from numpy.typing import NDArray

from latent_ebm.detection.detector import LatentEBMDetector
from latent_ebm.detection.findings import Findings
from latent_ebm.plots import new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_FEATURES = 6  # shown of a row
NUM_BINS, NUM_RANKS = 40, 300
PANEL = (3.9, 3.1)
NORMAL, NEW, LIMIT = "#7a8896", "#c2410c", "#111827"


def make_report(
    detector: LatentEBMDetector,
    x: NDArray[np.float64],
    findings: Findings,
    columns: Sequence[str],
    rows: Sequence[str],
    facts: dict[str, object],
    num_shown: int = 8,
) -> str:
    """The page, as HTML.

    Args:
        detector: the fitted detector.
        x: new rows (n, d).
        findings: what was found in them.
        columns: names of the d columns.
        rows: names of the n rows.
        facts: what else to print, value by name, beside facts about the detector.
        num_shown: how many of the most unusual rows to explain.

    Raises:
        ValueError: there is another number of names or findings.
    """
    for name, names, size in (("columns", columns, x.shape[1]), ("rows", rows, len(x))):
        if len(names) != size:
            raise ValueError(f"{name} must name all {size}, got {len(names)}")
    if len(findings.scores) != len(x):
        raise ValueError(
            f"findings must be of the {len(x)} rows of x, got {len(findings.scores)} scores"
        )
    worst = np.argsort(findings.scores, kind="stable")[:num_shown]
    show = table_cards if detector.image_shape is None else image_cards
    cards = [
        {
            "name": rows[i],
            "score": float(findings.scores[i]),
            "p_value": float(findings.p_values[i]),
            "selected": bool(findings.selected[i]),
            "beyond": bool(findings.beyond[i]),
            **extra,
        }
        for i, extra in zip(worst, show(detector, x[worst], columns), strict=True)
    ]
    noun = "rows" if detector.image_shape is None else "images"
    return template().render(
        cards=cards,
        images=detector.image_shape is not None,
        findings=findings,
        num_outliers=int((findings.p_values <= findings.alpha).sum()),
        num_beyond=int(findings.beyond.sum()),
        figures={
            "scores": svg(scores_figure(findings, noun)),
            "p_values": svg(p_values_figure(findings, noun)),
            "selection": svg(selection_figure(findings, noun)),
        },
        facts={**facts, **own_facts(detector, findings)},
    )


def template() -> Template:
    """The template of the page; it escapes every text."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    text = (
        resources.files("latent_ebm.detection").joinpath("report.html").read_text(encoding="utf-8")
    )
    return environment.from_string(text)


def number(value: float, digits: int = 4) -> str:
    """``value`` to at most ``digits`` significant digits, with a true minus sign."""
    return f"{value:.{digits}g}".replace("-", "−")


def own_facts(detector: LatentEBMDetector, findings: Findings) -> dict[str, object]:
    """Facts about the detector: its parameters and the sizes that the fit chose."""
    views = detector.views_
    tables = "kernels at training rows" + (", exact rules between columns" if views[1:] else "")
    images = "kernels at pixel components and at features of images"
    dims = [view.kernels.base.exemplars.shape[1] for view in views]
    fitted = {
        "Score": tables if detector.image_shape is None else images,
        "Normal rows held out for p-values": len(findings.normal_scores),
        "Numbers in a code": " + ".join(map(str, dims)),
        "Training rows that carry a kernel": len(detector.rows_),
        "Ratio stages": len(getattr(views[0].prior, "stages", ())),
        "Version of latent-ebm": metadata.version("latent-ebm"),
    }
    parameters = {
        **detector.get_params(),
        "encoder": detector.encoder and type(detector.encoder).__name__,
    }
    return {**fitted, **{f"Parameter {name}": value for name, value in parameters.items()}}


def table_cards(
    detector: LatentEBMDetector, x: NDArray[np.float64], columns: Sequence[str]
) -> list[dict[str, list[dict[str, object]]]]:
    """For each row of ``x``, the features that raise its energy most."""
    why = detector.explain(x)
    cards = []
    for row, contribution, normal in zip(x, why.contribution, why.reconstruction, strict=True):
        order = [
            j
            for j in np.argsort(-contribution, kind="stable")[:NUM_FEATURES]
            if contribution[j] > 0
        ]
        features = [
            {
                "name": columns[j],
                "value": float(row[j]),
                "normal": float(normal[j]),
                "nats": float(contribution[j]),
                "percent": round(100 * float(contribution[j] / contribution[order[0]]), 1),
            }
            for j in order
        ]
        cards.append({"features": features})
    return cards


def image_cards(
    detector: LatentEBMDetector, x: NDArray[np.float64], columns: Sequence[str]
) -> list[dict[str, list[tuple[str, str]]]]:
    """For each flattened image of ``x``: the image, the model's normal image beside it, and where
    the two differ in energy.
    """
    why = detector.explain(x)
    shape = (len(x), *(int(size) for size in detector.image_shape or ()))
    low, high = float(x.min()), float(x.max())
    pixels, normal = (
        np.clip((v.reshape(shape) - low) / ((high - low) or 1), 0, 1)
        for v in (x, why.reconstruction)
    )
    maps = why.contribution.reshape(shape).sum(1)
    return [
        {
            "pictures": [
                ("image", png(image)),
                ("model’s normal", png(other)),
                ("what is unusual", png(heat(contribution))),
            ]
        }
        for image, other, contribution in zip(pixels, normal, maps, strict=True)
    ]


def heat(contribution: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (3, H, W) of contributions (H, W): red raises the energy, blue lowers it, white does
    neither.
    """
    import matplotlib

    limit = float(np.abs(contribution).max()) or 1.0
    colours = matplotlib.colormaps["RdBu_r"]((contribution / limit + 1) / 2)
    return np.moveaxis(colours[..., :3], -1, 0)


def png(image: NDArray[np.float64]) -> str:
    """The address ``data:`` of an image (C, H, W) in [0, 1]: RGB if C is 3, else the mean of C."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    shown = image if len(image) == 3 else image.mean(0)
    pixels = np.moveaxis(np.broadcast_to(shown, (3, *image.shape[1:])), 0, -1)
    imsave(file, np.ascontiguousarray(pixels), format="png")
    return as_address("image/png", file.getvalue())


def svg(figure: "Figure") -> str:
    """The address ``data:`` of a drawing, the same for the same figure."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "latent-ebm"}):
        figure.savefig(
            file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True
        )
    return as_address("image/svg+xml", file.getvalue())


def as_address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@styled
def scores_figure(findings: Findings, noun: str) -> "Figure":
    """Scores of normal and of new rows over common bins, and the threshold."""
    figure, (axes,) = new_figure(1, PANEL)
    samples = (
        (f"normal {noun}, held out", findings.normal_scores, NORMAL),
        (f"new {noun}", findings.scores, NEW),
    )
    low, high = score_range(findings)
    bins = np.linspace(low, high, NUM_BINS + 1)
    for label, values, colour in samples:
        counts, _ = np.histogram(np.clip(values, low, high), bins)
        axes.stairs(
            100 * counts / len(values), bins, label=label, color=colour, fill=True, alpha=0.3
        )
        axes.stairs(100 * counts / len(values), bins, color=colour, linewidth=1.2)
    if not findings.num_folds:  # whose scores no single threshold divides
        axes.axvline(
            findings.threshold, color=LIMIT, linestyle="--", linewidth=1, label="threshold"
        )
    beyond = int((findings.scores < low).sum())
    if beyond:
        axes.set_title(f"first bar: {beyond} new {noun}, and lower", fontsize="small", color="0.3")
    axes.set(xlabel="score (unusual  ←  →  normal)", ylabel=f"% of the {noun}")
    axes.legend(loc="upper left")
    return figure


def score_range(findings: Findings) -> tuple[float, float]:
    """The range of scores that is drawn. It extends below the normal rows by at most twice their
    range.
    """
    normal = findings.normal_scores
    low = max(findings.scores.min(), normal.min() - 2 * np.ptp(normal))
    low, high = (
        min(low, normal.min(), findings.threshold),
        max(normal.max(), findings.scores.max()),
    )
    return float(low), float(high if high > low else low + 1)


@styled
def p_values_figure(findings: Findings, noun: str) -> "Figure":
    """How often each p-value occurs, and how often it would if all rows were normal."""
    figure, (axes,) = new_figure(1, PANEL)
    counts, edges = np.histogram(findings.p_values, np.linspace(0, 1, 21))
    axes.stairs(
        100 * counts / len(findings.p_values),
        edges,
        color=NEW,
        fill=True,
        alpha=0.5,
        label=f"new {noun}",
    )
    axes.axhline(
        100 / len(counts), color=LIMIT, linestyle=":", linewidth=1, label="if all were normal"
    )
    axes.set(xlabel="p-value", ylabel=f"% of the new {noun}", xlim=(0, 1))
    axes.legend(loc="upper center")
    return figure


@styled
def selection_figure(findings: Findings, noun: str) -> "Figure":
    """The sorted p-values and the line of Benjamini and Hochberg: rows are selected up to the last
    p-value below it.
    """
    figure, (axes,) = new_figure(1, PANEL)
    p, num = np.sort(findings.p_values), len(findings.p_values)
    ranks = np.unique(np.geomspace(1, num, NUM_RANKS).round().astype(int))
    axes.loglog(ranks, p[ranks - 1], ".", color=NEW, markersize=4, label=f"new {noun}")
    axes.loglog(
        [1, num],
        [findings.alpha / num, findings.alpha],
        "--",
        color=LIMIT,
        linewidth=1,
        label="selection line",
    )
    axes.set(xlabel="rank, most unusual first", ylabel="p-value")
    axes.legend(loc="lower right")
    return figure
