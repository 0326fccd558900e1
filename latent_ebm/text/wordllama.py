"""Static embeddings of subwords from the wheel of ``wordllama``: an open vocabulary without any
download.

The package (MIT) ships 256-dimensional vectors of 32,000 subwords, reduced from the input layers
of large language models. Its two files are read; its code is not imported.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from latent_ebm.foreign import apart, check_file, reading
from latent_ebm.text.encoder import TextTransformer
from latent_ebm.text.tokenizer import Tokenizer, normalise
from samplers.checks import check_counts

WEIGHTS = "weights/l2_supercat_256.safetensors"
SUBWORDS = "tokenizers/l2_supercat_tokenizer_config.json"


class SubwordTokenizer(Tokenizer):
    """Subwords of ``wordllama``: 0 is padding, 1 the start; characters without a subword are
    spelled in bytes, so that no word is unknown.

    Args:
        max_tokens: Number of tokens in a row; one of them is the start.

    Raises:
        ValueError: If ``max_tokens`` is less than 2.
        ImportError: Without the package ``wordllama``.
    """

    def __init__(self, max_tokens: int = 24) -> None:
        super().__init__()
        check_counts(self, least=2, max_tokens=max_tokens)
        self.max_tokens = max_tokens
        path = wordllama_file(SUBWORDS)
        with reading(path, "a tokenizer of wordllama"):
            self.subwords = import_module("tokenizers").Tokenizer.from_file(str(path))
        self.subwords.encode_special_tokens = True  # "<s>" in a prompt is text

    @property
    def num_tokens(self) -> int:
        return self.subwords.get_vocab_size()

    def split(self, prompt: str) -> tuple[list[int], list[str]]:
        return self.subwords.encode(" ".join(normalise(prompt).split())).ids, []


def subword_encoder(
    max_tokens: int = 24, dim: int = 128, depth: int = 1, num_heads: int = 4, expansion: int = 4
) -> TextTransformer:
    """A text encoder over the fixed vectors of ``wordllama``.

    Args:
        max_tokens: Number of tokens in a row; one of them is the start.
        dim: Dimension of a vector, a multiple of ``num_heads``.
        depth: Number of transformer layers.
        num_heads: Number of heads of their attention.
        expansion: Width of their feed-forward parts in multiples of ``dim``, an even number.

    Raises:
        ImportError: Without the package ``wordllama``.
    """
    tokenizer = SubwordTokenizer(max_tokens)
    return TextTransformer(tokenizer, dim, depth, num_heads, expansion, subword_table())


def subword_table() -> Tensor:
    """Vectors (32000, 256) of the subwords of ``wordllama``, float32, scaled to unit variance."""
    path = wordllama_file(WEIGHTS)
    with reading(path, "the weights of wordllama"):
        table = apart(load_file)(path)["embedding.weight"].float()
    return table / table.std()


def wordllama_file(name: str) -> Path:
    """A file of the installed package ``wordllama``."""
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise ImportError(
            "static text embeddings need wordllama: pip install 'latent-ebm[wordllama]'"
        )
    return check_file(Path(spec.origin).parent / name, "a file of wordllama")
