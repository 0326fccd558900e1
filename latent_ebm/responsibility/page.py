"""The page of an audit: one HTML file that runs no script and fetches nothing.

Each number on it is a ``<data>`` element with the name of its metric. Whatever else has digits is
a text of the user in a ``<bdi>`` element. All texts are escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from latent_ebm.plots.images import image_address
from samplers.checks import is_real

SHOWN = 256  # pixels of a side, at most
MINUS = "−"


@dataclass(frozen=True)
class Number:
    """A metric: its name, such as "watermark/drawn/low", and its value."""

    name: str
    value: float

    def __bool__(self) -> bool:
        return bool(self.value)

    def shown(self, text: str) -> Markup:
        """``text``, which is the value as a reader sees it."""
        return Markup('<data value="{}" data-metric="{}">{}</data>').format(
            self.value, self.name, text.replace("-", MINUS)
        )


def named(metrics: object, name: str = "") -> object:
    """``metrics``, in which every number knows its name."""
    if isinstance(metrics, dict):
        return {key: named(value, f"{name}/{key}".lstrip("/")) for key, value in metrics.items()}
    if isinstance(metrics, list):
        return [named(value, f"{name}/{i}".lstrip("/")) for i, value in enumerate(metrics)]
    return Number(name, metrics) if is_real(metrics) else metrics


def whole(number: Number) -> Markup:
    """A count, with thin spaces between thousands."""
    return number.shown(f"{number.value:,.0f}".replace(",", "\u202f"))


def plain(number: Number) -> Markup:
    """A number as it is, such as a seed."""
    return number.shown(str(number.value))


def digits(number: Number) -> Markup:
    """A number to three significant digits."""
    return number.shown(f"{number.value:.3g}")


def percent(number: Number) -> Markup:
    """A share in percent, to a tenth below ten percent."""
    share = 100 * number.value
    near = min(share, 100 - share)
    text = f"{share:.{1 if near < 10 else 0}f}".removesuffix(".0")
    return number.shown(text) + Markup("\u202f%")


def place(number: Number) -> str:
    """A share as a length of style."""
    return f"{100 * min(max(number.value, 0), 1):.2f}%"


def between(interval: Mapping[str, Number]) -> Markup:
    """A share with its interval."""
    low, high = percent(interval["low"]), percent(interval["high"])
    return percent(interval["estimate"]) + Markup(
        ' <span class="soft interval">({} to {})</span>'
    ).format(low, high)


def make_page(
    *,
    prompts: Sequence[str],
    x: Tensor,
    metrics: Mapping[str, object],
    nearest: Tensor,
    **texts: object,
) -> str:
    """The page of an ``Audit``, whose attributes these are."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for show in (whole, plain, digits, percent, place, between):
        environment.filters[show.__name__] = show
    source = resources.files("latent_ebm.responsibility").joinpath("audit.html")
    template = environment.from_string(source.read_text(encoding="utf-8"))
    return template.render(
        prompts=prompts,
        pictures=[[image_address(image, SHOWN) for image in row] for row in x],
        nearest=[image_address(image, SHOWN) for image in nearest],
        small=max(x.shape[-2:]) <= SHOWN // 2,
        m=named(metrics),
        **texts,
    )
