"""What a checkpoint says in place of the names of files, so that it needs fewer of them.

A checkpoint holds the weights of all its parts. What else a file of this library says, such as the
configuration of a teacher or the words of a tokenizer, takes the place of the loader that names
the file. Folders of other libraries are opened again when the checkpoint is loaded.
"""

from pathlib import Path

from latent_ebm.artefacts.describing import describe
from latent_ebm.artefacts.folders import config_path, is_saved, read_record
from latent_ebm.artefacts.state import tensor_paths
from latent_ebm.autoencoders import load_autoencoder
from latent_ebm.cli.checkpoints import (
    CONDITIONER_LOADER,
    DENOISER_LOADER,
    by_path,
    read_checkpoint,
    read_config,
)
from latent_ebm.text import WordTokenizer

PARTS = {DENOISER_LOADER: "denoiser", CONDITIONER_LOADER: "conditioner"}
AUTOENCODERS, WORDS = by_path(load_autoencoder), by_path(WordTokenizer.load)


def inline(config: object) -> object:
    """``config``, plain dicts, lists and scalars, with every loader of a file of this library
    replaced by the configuration of what it loads.
    """
    if isinstance(config, list):
        return [inline(value) for value in config]
    if not isinstance(config, dict):
        return config
    loader, arguments = config.get("class_path"), config.get("init_args") or {}
    if loader in PARTS:
        return part_config(arguments["checkpoint"], PARTS[loader])
    if loader in WORDS:
        return describe(WordTokenizer.load(arguments["path"]), "", {})
    if loader in AUTOENCODERS and is_saved(arguments["folder"]):
        return saved_config(arguments["folder"])
    return {name: inline(value) for name, value in config.items()}


def part_config(path: str | Path, name: str) -> object:
    """The configuration of the part ``name`` of a rule's checkpoint, or of a model in a folder
    that ``save`` wrote; of another folder all of it.
    """
    if not config_path(path).is_file():
        return read_config(read_checkpoint(path)["config"], path)["model"]["init_args"][name]
    return saved_config(path, name)


def saved_config(folder: str | Path, name: str | None = None) -> object:
    """The configuration of the object in a folder that ``save`` wrote; of a ``TextToImage`` only
    that of its part ``name``.

    Raises ``ValueError`` if an argument is a tensor, which cannot be written as text.
    """
    tree = read_record(config_path(folder))["object"]
    if name is not None and tree["class_path"].endswith(".TextToImage"):
        tree = tree["init_args"][name]
    if tensor := next(tensor_paths(tree), None):
        raise ValueError(
            f"{folder} must hold an object whose arguments are numbers to be named in a YAML "
            f"file, got a tensor {tensor}"
        )
    return tree
