r"""Model cards whose every number comes from a run.

A model card (Mitchell et al. 2018, arXiv:1810.03993) says what a model is for, how it was made and
how good it is. Here it is written from two files of a run, its configuration and its metrics, and
from texts of yours. A number in your texts that stands in neither file is refused, so that a card
cannot claim what was not measured, and a stale card is noticed.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from latent_ebm.foreign import check_file, check_yaml, read_json, reading
from latent_ebm.responsibility.page import MINUS
from samplers.checks import is_real

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d[\d_,]*(?:\.\d*)*|\.\d+)(?:[eE][-+]?\d+)?")
SECTIONS = ("Description", "Intended use", "Limits", "Not tested")


def model_card(
    name: str,
    config: str | os.PathLike[str],
    metrics: str | os.PathLike[str],
    texts: Mapping[str, str],
    license: str | None = None,
    tags: Sequence[str] = (),
) -> "ModelCard":
    """The card of a trained model; ``card.save("README.md")`` writes it.

    Args:
        name: What the model is called.
        config: The YAML file of the run, shown whole.
        metrics: A JSON file of numbers, in objects or lists of any depth, all shown in one table
            with all their digits.
        texts: One text for each of "Description", "Intended use", "Limits" and "Not tested". Their
            numbers must be written as in one of the files.
        license: An identifier such as "apache-2.0".
        tags: Words to find the model by.

    Raises:
        ImportError: Without the package ``huggingface_hub``, which comes with the extra
            ``diffusers``.
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, a metric is no finite number, two have one name, a text
            is missing or empty, or a text holds a number that no file has.
    """
    check_texts(texts)
    settings, numbers = read_config(config), flatten_metrics(read_json(metrics, "metrics"))
    values = check_names(list(numbers))
    known = number_tokens(f"{name} {settings} {' '.join(values)} {json.dumps(values)}")
    for title in SECTIONS:
        if unknown := sorted(number_tokens(texts[title]) - known):
            raise ValueError(
                f"texts[{title!r}] must hold only numbers of {Path(metrics).name} or "
                f"{Path(config).name}, written as there, got {unknown[0]}"
            )
    return assemble(name, settings, values, texts, license, tags)


def assemble(
    name: str,
    settings: str,
    values: Mapping[str, float],
    texts: Mapping[str, str],
    license: str | None,
    tags: Sequence[str],
) -> "ModelCard":
    """The card of texts that were checked."""
    try:
        from huggingface_hub import ModelCard, ModelCardData
    except ImportError as error:
        raise ImportError(
            "model_card needs the package huggingface_hub: pip install 'latent-ebm[diffusers]'"
        ) from error
    data = ModelCardData(
        model_name=name, license=license, library_name="latent-ebm", tags=list(tags) or None
    )
    rows = [f"| `{key}` | {json.dumps(value)} |" for key, value in values.items()]
    parts = [f"# {name}"]
    parts += [f"## {title}\n\n{texts[title].strip()}" for title in SECTIONS]
    parts += ["## Metrics\n\n| metric | value |\n|---|---|\n" + "\n".join(rows)]
    parts += [f"## Configuration\n\n```yaml\n{settings.strip()}\n```"]
    header = f"---\n{data.to_yaml()}\n---\n\n"
    return ModelCard(header + "\n\n".join(parts) + "\n")


def read_config(path: str | os.PathLike[str]) -> str:
    """The text of a YAML file. Raises ``ValueError`` if it is none."""
    place = check_file(path, "the configuration of a run as YAML")
    with reading(place, "the configuration of a run as YAML"):
        text = place.read_text(encoding="utf-8")
        if not isinstance(yaml.safe_load(check_yaml(text)), dict) or "```" in text:
            raise ValueError("it is no mapping of settings")
    return text


def flatten_metrics(metrics: object, path: str = "") -> Iterator[tuple[str, float]]:
    """Name, as in "coverage/low" or "win/0", and value of every number in nested ``metrics``."""
    if is_real(metrics):
        if not abs(metrics) < float("inf"):
            raise ValueError(f"metrics must be finite numbers, got {metrics} for {path!r}")
        yield path, metrics
    elif isinstance(metrics, dict | list):
        pairs = metrics.items() if isinstance(metrics, dict) else enumerate(metrics)
        for key, value in pairs:
            yield from flatten_metrics(value, f"{path}/{key}" if path else str(key))
    else:
        raise ValueError(f"metrics must be finite numbers, got {metrics!r:.100} for {path!r}")


def number_tokens(text: str) -> set[str]:
    """The numbers in ``text`` as they are written, with a hyphen for a minus; digits inside of
    words are none.
    """
    plain = text.replace(MINUS, "-")
    return {found.rstrip(",.").lstrip("+") for found in NUMBER.findall(plain)}


def check_names(numbers: Sequence[tuple[str, float]]) -> dict[str, float]:
    """``numbers`` by name. Raises ``ValueError`` if two have the same name."""
    for name, count in Counter(name for name, _ in numbers).items():
        if count > 1:
            raise ValueError(f"metrics must have different names, got {name!r} {count} times")
    return dict(numbers)


def check_texts(texts: Mapping[str, str]) -> None:
    """Raise ``ValueError`` unless ``texts`` has a text for every section and for no other."""
    if set(texts) != set(SECTIONS):
        raise ValueError(f"texts must have {', '.join(SECTIONS)}, got {', '.join(texts)}")
    for title, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"texts[{title!r}] must be a text that is not empty, got {text!r}")
