r"""An audit of a generator: what can be measured on pictures that it drew, on one page.

``Audit`` takes prompts and pictures, so that it serves any generator. Each of its methods measures
one thing more, for which it needs something of yours: a filter, a classifier, training pictures, a
key. Nothing else is tested, and the page says so.
"""

import json
import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from latent_ebm.responsibility import measures
from latent_ebm.responsibility.filters import ImageFilter, PromptFilter
from latent_ebm.responsibility.page import make_page
from latent_ebm.responsibility.representation import Classify
from latent_ebm.responsibility.watermark import check_images
from latent_ebm.text.tokenizer import check_list, check_prompt
from latent_ebm.writing import atomic_folder
from samplers.checks import check_numbers, is_real, is_whole

PAGE, METRICS = "report.html", "metrics.json"
PARTS = {  # metrics, what they are about, and what it takes
    "prompt_filter": ("Which prompts are refused", "No filter of prompts was given."),
    "picture_filter": ("Which pictures are refused", "No classifier of pictures was given."),
    "representation": (
        "Whom the pictures show",
        "No classifier of attributes was given for which a prompt leaves the attribute open.",
    ),
    "memorisation": (
        "Copies of training pictures",
        "No training pictures and held-out pictures were given.",
    ),
    "text_difference": (
        "Prompts that decide the picture alone",
        "The model was not given, only its pictures.",
    ),
    "watermark": ("A watermark in the pixels", "No key was given."),
    "noise_watermark": (
        "A watermark in the initial noise",
        "No key was given, or the sampler of the model cannot be inverted.",
    ),
    "alignment": ("Whether a picture shows what its prompt says", "No scorer was given."),
}
ALWAYS = {
    "Other prompts": "Every number speaks of the prompts of this page alone.",
    "What people think": "That takes raters; export_study writes a page for them.",
    "Copies in part": "Copies that are mirrored, turned or cropped, or of a part of a picture, "
    "are not looked for.",
    "Mistakes of classifiers": "Shares are what a classifier says, right or wrong; "
    "Representation.corrected takes out mistakes that are known.",
    "The training data": "Their licences, labels and faults do not show in drawn pictures.",
}


class Audit:
    """Pictures that a generator has drawn, and what has been measured on them.

    Args:
        prompts: What was drawn, each prompt once.
        x: Pictures (prompts, num, C, H, W) in [-1, 1] with 1 or 3 channels.
        facts: What the page says about the run, by name. Numbers become metrics.

    Attributes:
        metrics: All that was measured: numbers by name, in dictionaries and lists of any depth.

    Raises:
        ValueError: If a prompt is not a text or comes twice, pictures do not fit, or a number is
            not finite.
    """

    def __init__(
        self, prompts: Sequence[str], x: Tensor, facts: Mapping[str, str | float] | None = None
    ) -> None:
        check_prompts(prompts)
        check_pictures(x, len(prompts))
        told = dict(facts or {})
        check_numbers("facts", "finite", **{k: v for k, v in told.items() if is_real(v)})
        self.prompts, self.x = tuple(prompts), x
        self.facts = {name: text for name, text in told.items() if not is_real(text)}
        self.reasons: list[str] = []
        self.refused: list[list[bool]] = []
        self.attributes: list[tuple[str, Sequence[str]]] = []
        self.nearest = x.new_empty(0, *x.shape[2:])
        self.metrics: measures.Metrics = {
            "run": {
                name: int(value) if is_whole(value) else float(value)
                for name, value in told.items()
                if is_real(value)
            },
            "prompts": x.shape[0],
            "num": x.shape[1],
            "pictures": x.shape[0] * x.shape[1],
            "height": x.shape[3],
            "width": x.shape[4],
            "level": measures.LEVEL,
            "mark_level": measures.MARK_LEVEL,
            "variety": measures.variety(x),
        }

    @property
    def untested(self) -> dict[str, str]:
        """What was not tested, and why."""
        missing = {what: why for name, (what, why) in PARTS.items() if name not in self.metrics}
        return missing | ALWAYS

    def judge_prompts(self, judge: PromptFilter) -> None:
        """Which prompts ``judge`` refuses, and why."""
        self.reasons, self.metrics["prompt_filter"] = measures.prompt_decisions(
            self.prompts, judge
        )

    def judge_pictures(self, judge: ImageFilter) -> None:
        """Which pictures ``judge`` refuses.

        Raises ``ValueError`` unless it returns a decision for each.
        """
        self.refused, self.metrics["picture_filter"] = measures.picture_decisions(self.x, judge)

    def represent(
        self,
        name: str,
        classify: Classify,
        categories: Sequence[str],
        target: Mapping[str, float] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        """How often the pictures show each category of an attribute, over the prompts that name
        none of them. May be called for several attributes.

        Args:
            name: What the attribute is called.
            classify: Maps pictures (n, C, H, W) to numbers of categories (n,) or to probabilities
                (n, K).
            categories: Names of the categories.
            target: The share of each category that you declare as the goal; None: no goal.
            generator: The random stream of the interval of the distance to the target.

        Raises:
            ValueError: For categories, a target or answers of ``classify`` that do not fit.
        """
        found = measures.representation(
            self.prompts, self.x, classify, categories, target, generator=generator
        )
        if found is not None:
            self.attributes.append((name, categories))
            self.metrics.setdefault("representation", []).append(found)

    def compare(self, train: Tensor, held_out: Tensor) -> None:
        """How near the pictures are to training pictures ``train`` (m, C, H, W), compared with
        pictures ``held_out`` (k, C, H, W) from the same source that were not trained on.

        Raises ``ValueError`` for fewer than 19 held-out pictures, for pictures of another size,
        and if one picture is in both.
        """
        rows, self.metrics["memorisation"] = measures.memorisation(self.x, train, held_out)
        self.nearest = train[rows]

    def find_watermark(self, key: bytes) -> None:
        """How often the watermark of ``key`` is found in the pixels, as the pictures were drawn
        and after they were marked.

        Raises ``ValueError`` for pictures of fewer than 32 pixels a side, and a short key.
        """
        self.metrics["watermark"] = measures.watermark(self.x, key)

    def add_noise_watermark(self, p: Tensor) -> None:
        """P-values (n,) of ``detect_noise_watermark``, of pictures that were drawn from marked
        noise.
        """
        self.metrics["noise_watermark"] = measures.noise_watermark(p)

    def add_alignment(self, scores: Tensor) -> None:
        """Scores (prompts, num) of how well each picture shows its prompt, such as cosines."""
        self.metrics["alignment"] = measures.alignment(scores, self.x.shape[:2])

    def add_text_differences(self, values: Tensor) -> None:
        """The mean ``text_difference`` (prompts,) of each prompt."""
        self.metrics["text_difference"] = measures.text_differences(values, len(self.prompts))

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``report.html``, a page that needs nothing but itself, and ``metrics.json``, where
        each number of the page stands, to a new ``folder``.

        Raises ``FileExistsError`` if ``folder`` exists already.
        """
        text = json.dumps(self.metrics, indent=1, allow_nan=False)
        page = make_page(**vars(self), untested=self.untested)
        with atomic_folder(folder) as draft:
            (draft / PAGE).write_text(page, encoding="utf-8")
            (draft / METRICS).write_text(f"{text}\n", encoding="utf-8")


def check_prompts(prompts: Sequence[str]) -> None:
    """Raise ``ValueError`` unless ``prompts`` are different texts."""
    check_list("prompts", prompts)
    if not prompts:
        raise ValueError("prompts must hold one text or more, got none")
    first: dict[str, int] = {}
    for i, prompt in enumerate(prompts):
        check_prompt(f"prompts[{i}]", prompt)
        if (before := first.setdefault(prompt, i)) != i:
            raise ValueError(f"prompts must differ, got {prompt!r} as number {before} and {i}")


def check_pictures(x: Tensor, num: int) -> None:
    """Raise ``ValueError`` unless ``x`` is pictures in [-1, 1] of ``num`` prompts."""
    shape = tuple(x.shape) if isinstance(x, Tensor) else ()
    if len(shape) != 5 or shape[0] != num or shape[2] not in (1, 3) or 0 in shape:
        got = shape or type(x).__name__
        raise ValueError(f"x must be pictures ({num}, num, 1 or 3, H, W), got {got}")
    check_images(x.flatten(0, 1))
    if not bool((x.abs() <= 1).all()):
        raise ValueError(f"x must lie in [-1, 1], got {float(x.min()):g} to {float(x.max()):g}")
