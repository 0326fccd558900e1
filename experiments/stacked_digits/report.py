"""The section of the report on a thousand modes."""

from typing import Any

from einops import rearrange

from experiments.common import results
from experiments.pictures import save, unpack
from experiments.stacked_digits.run import COLUMNS, NUM, ROWS
from experiments.tables import spread, table
from latent_ebm.plots import image_grid, new_figure, styled


def section() -> str:
    """The table of all models at equal time, and samples side by side."""
    stored = results("stacked_digits")
    runs = {
        name: [run for key, run in stored.items() if key.rsplit("-", 1)[0] == name]
        for name in (*ROWS, "data")
    }
    if not all(runs.values()):
        return ""
    if all("samples" in run for run in stored.values()):
        save(draw(stored), "stacked_digits")
    names = {**ROWS, "data": "held-out digits"}
    accuracy = runs["data"][0]["accuracy"]
    rows = [
        [names[name], *(spread(run.get(key) for run in runs[name]) for key in COLUMNS)]
        for name in names
    ]
    return f"""## A thousand modes: `python -m experiments.stacked_digits`

Three digits of 8x8 pixels, drawn from 1,297, are the channels of an image; {NUM:,} samples are
sorted into 1,000 classes by a classifier of single digits, which is right about
{100 * accuracy:.1f} % of the held-out ones. A class counts as found with one sample in it; KL is
that of the histogram to the uniform one, and is .02 for as many draws of all classes; the Fréchet
distance is to stacked held-out digits in the features of the classifier. Models had equal CPU
time, and are sampled with averaged weights. Poor samples are sorted too, so the modes of a model
with a large distance are counted generously.

{table(["model", *COLUMNS.values()], rows)}
![Samples](figures/stacked_digits.png)

Data, and samples of the first seed, the three channels side by side.
"""


@styled
def draw(stored: dict[str, Any]) -> Any:
    """A grid of samples a model, the data first; the channels are side by side."""
    figure, axes = new_figure(4, (2.3, 2.4))
    for axis, (name, title) in zip(axes, {"data": "data", **ROWS}.items(), strict=True):
        axis.set(title=title)
        axis.set_axis_off()
        x = rearrange(unpack(stored[f"{name}-0"]["samples"], (3, 8, 8)), "n c h w -> n 1 h (c w)")
        axis.imshow(image_grid(x[:24], 3), vmin=0, vmax=1, cmap="gray", interpolation="nearest")
    return figure
