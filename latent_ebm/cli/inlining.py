"""What a checkpoint says in place of the names of files, so that it needs fewer of them.

A checkpoint holds the weights of all its parts. What else a file of this library says, such as the
configuration of a teacher or the words of a tokenizer, takes the place of the loader that names
the file. Folders of other libraries are opened again when the checkpoint is loaded.
"""

from pathlib import Path

from latent_ebm.artefacts.describing import describe
from latent_ebm.artefacts.folders import config_path, is_saved, read_record, tensor_paths
from latent_ebm.autoencoders import load_autoencoder
from latent_ebm.cli.checkpoints import DENOISER_LOADER, by_path, read_checkpoint, read_config
from latent_ebm.text import WordTokenizer

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
    if loader == DENOISER_LOADER:
        return denoiser_config(arguments["checkpoint"])
    if loader in WORDS:
        return describe(WordTokenizer.load(arguments["path"]), "", {})
    if loader in AUTOENCODERS and is_saved(arguments["folder"]):
        return saved_config(arguments["folder"])
    return {name: inline(value) for name, value in config.items()}


def denoiser_config(path: str | Path) -> object:
    """The configuration of the denoiser in a checkpoint or in a folder that ``save`` wrote."""
    if config_path(path).is_file():
        return saved_config(path)
    return read_config(read_checkpoint(path)["config"], path)["model"]["init_args"]["denoiser"]


def saved_config(folder: str | Path) -> object:
    """The configuration of the object in a folder that ``save`` wrote.

    Raises ``ValueError`` if an argument is a tensor, which cannot be written as text.
    """
    tree = read_record(config_path(folder))["object"]
    if name := next(tensor_paths(tree), None):
        raise ValueError(
            f"{folder} must hold an object whose arguments are numbers to be named in a YAML "
            f"file, got a tensor {name}"
        )
    return tree
