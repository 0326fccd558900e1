"""Text encoders of ``transformers`` from local folders. Nothing is downloaded or unpickled."""

import os
import reprlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from torch import Tensor, nn

from latent_ebm.foreign import read_json, reading
from latent_ebm.text.encoder import TextEncoder, check_tokens
from latent_ebm.text.tokenizer import Tokenizer
from samplers.checks import check_counts

NO_LIMIT = 1_000_000  # tokens in a row; transformers writes 10^30 where there is no limit


class Pretrained(Protocol):
    """What is used of a tokenizer of ``transformers``."""

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    unk_token_id: int | None
    is_fast: bool

    def __len__(self) -> int: ...
    def __call__(self, text: str, **options: bool) -> Mapping[str, list]: ...
    def num_special_tokens_to_add(self) -> int: ...


class PretrainedTokenizer(Tokenizer):
    """A tokenizer of ``transformers``, whose marks and padding are its own.

    A prompt that spells one of the marks, such as "</s>", is refused where the tokenizer would
    read it as the mark.

    Args:
        tokenizer: The tokenizer; one without a padding token pads with its end token.
        max_tokens: Number of tokens in a row, marks included.
    """

    def __init__(self, tokenizer: Pretrained, max_tokens: int) -> None:
        super().__init__()
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        self.num_marks = tokenizer.num_special_tokens_to_add()
        check_counts(self, least=self.num_marks + 1, max_tokens=max_tokens)
        padding = tokenizer.pad_token_id
        padding = tokenizer.eos_token_id if padding is None else padding
        if padding is None:
            raise ValueError("a tokenizer must have a token for padding or for the end, got none")
        self.padding = padding

    @property
    def num_tokens(self) -> int:
        return len(self.tokenizer)

    def split(self, prompt: str) -> tuple[list[int], list[str]]:
        fast, unknown = self.tokenizer.is_fast, self.tokenizer.unk_token_id
        made = self.tokenizer(
            prompt, return_offsets_mapping=fast, split_special_tokens=True, verbose=False
        )
        ids = list(made["input_ids"])
        marks = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.padding}
        if sum(i in marks for i in ids) > self.num_marks:
            raise ValueError(
                f"a prompt must not spell a mark of its tokenizer, got {reprlib.repr(prompt)}"
            )
        whole = (0, 0 if unknown in marks else len(prompt))  # CLIP's end is its unknown token too
        places = made["offset_mapping"] if fast else [whole] * len(ids)
        known = zip(ids, places, strict=True)
        return ids, [prompt[a:b] for i, (a, b) in known if i == unknown and a < b]

    def shown(self, tokens: Tensor) -> Tensor:
        """Mask (n, m) of ``tokens`` (n, m) that are no padding; where padding is the end token
        too, the first one counts.
        """
        padding = tokens == self.padding
        if self.padding == self.tokenizer.eos_token_id:
            return padding.cumsum(1) - padding.long() == 0
        return ~padding


class PretrainedTextEncoder(TextEncoder):
    """The last hidden state of a text model of ``transformers``, always in evaluation mode.

    Args:
        tokenizer: What turns prompts into ids.
        model: The model, such as a ``CLIPTextModel``.
        show_padding: Whether all rows are shown to the network, and padding to the model, as
            Stable Diffusion does. Otherwise neither sees padding.
    """

    tokenizer: PretrainedTokenizer

    def __init__(
        self, tokenizer: PretrainedTokenizer, model: nn.Module, show_padding: bool = False
    ) -> None:
        super().__init__()
        self.tokenizer, self.model, self.show_padding = tokenizer, model.eval(), show_padding
        self.dim: int = vars(model)["config"].hidden_size

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (n, m, dim) of ``tokens`` (n, m), and their mask (n, m).

        Raises ``ValueError`` for tokens of another shape or range.
        """
        check_tokens(tokens, self.tokenizer)
        mask = self.tokenizer.shown(tokens) | self.show_padding
        seen = None if self.show_padding else mask.long()
        return self.model(input_ids=tokens, attention_mask=seen).last_hidden_state, mask

    def train(self, mode: bool = True) -> "PretrainedTextEncoder":
        """Stays in evaluation mode."""
        return super().train(False)


def load_text_encoder(
    folder: str | os.PathLike[str], max_tokens: int | None = None, show_padding: bool = False
) -> PretrainedTextEncoder:
    """The text encoder in a folder of ``diffusers`` or ``transformers``, frozen.

    Args:
        folder: A folder with ``text_encoder/`` and ``tokenizer/``, or one that holds the files of
            both.
        max_tokens: Number of tokens in a row, marks included. None: the most that model and
            tokenizer allow, 77 for CLIP.
        show_padding: As in ``PretrainedTextEncoder``; True is what Stable Diffusion's own U-Nets
            were trained with.

    Raises:
        ImportError: Without the package ``transformers``.
        FileNotFoundError: If the configuration of the model is missing.
        ValueError: If the folder holds no text model or names no limit, or weights are missing or
            do not fit.
    """
    model = read_model(import_transformers(folder), part_of(folder, "text_encoder"))
    encoder = PretrainedTextEncoder(load_tokenizer(folder, max_tokens), model, show_padding)
    return encoder.requires_grad_(False)


def load_tokenizer(
    folder: str | os.PathLike[str], max_tokens: int | None = None
) -> PretrainedTokenizer:
    """The tokenizer of the text encoder in a folder, by which data make the tokens of captions.

    Args:
        folder: As in ``load_text_encoder``.
        max_tokens: As in ``load_text_encoder``.

    Raises:
        ImportError: Without the package ``transformers``.
        FileNotFoundError: If the configuration of the model is missing.
        ValueError: If the folder holds no tokenizer or no text model, or names no limit.
    """
    transformers, place = import_transformers(folder), part_of(folder, "tokenizer")
    with reading(place, "a tokenizer of transformers"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            place, local_files_only=True, trust_remote_code=False
        )
    if max_tokens is None:
        place = part_of(folder, "text_encoder")
        with reading(place, "the configuration of a model of transformers"):
            config = find_model(transformers, place).config_class.from_pretrained(place)
            config = getattr(config, "text_config", config)
        max_tokens = int(tokenizer.model_max_length)
        max_tokens = min(max_tokens, getattr(config, "max_position_embeddings", max_tokens))
        if max_tokens > NO_LIMIT:
            raise ValueError(
                f"max_tokens must be given for {folder}, whose model and tokenizer name no limit"
            )
    return PretrainedTokenizer(tokenizer, max_tokens)


def import_transformers(folder: str | os.PathLike[str]) -> ModuleType:
    """The package ``transformers``, by which ``folder`` is loaded."""
    try:
        return import_module("transformers")
    except ImportError as error:
        raise ImportError(
            f"loading {folder} needs transformers: pip install 'latent-ebm[transformers]'"
        ) from error


def part_of(folder: str | os.PathLike[str], name: str) -> Path:
    """The folder ``name`` in ``folder``; ``folder`` itself if there is none."""
    folder = Path(folder).expanduser()
    return folder / name if (folder / name).is_dir() else folder


def find_model(transformers: ModuleType, folder: Path) -> Any:
    """The class of ``transformers`` that the configuration in ``folder`` names."""
    config = read_json(folder / "config.json", "the configuration of a model of transformers")
    name = next(iter(config.get("architectures") or []), None)
    kind = getattr(transformers, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise ValueError(
            f"architectures of {folder / 'config.json'} must name a model of transformers, got "
            f"{name!r}"
        )
    return kind


def read_model(transformers: ModuleType, folder: Path) -> nn.Module:
    """The text model in ``folder``, of a class of ``transformers``, if no weights are missing."""
    model = read_weights(transformers, folder)
    if not hasattr(vars(model)["config"], "vocab_size"):
        raise ValueError(f"{folder} must hold a model of text, got a {type(model).__name__}")
    return model


def read_weights(transformers: ModuleType, folder: Path) -> nn.Module:
    """The model in ``folder``, of a class of ``transformers``, if no weights are missing."""
    kind = find_model(transformers, folder)
    with reading(folder, "a model of transformers and its weights as .safetensors"):
        model, info = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        wrong = {k: sorted(v) for k, v in info.items() if v and k.startswith(("mis", "error"))}
        if wrong:
            raise ValueError(f"weights that do not fit, {wrong}")
    return model
