r"""A subject as rows at the output of a text encoder (HiFi Tuner, arXiv:2312.00079).

An encoded prompt has m rows, and the last of them are padding. There the text says little, so n of
them can say what a certain subject looks like: ``[c, c_s]``, with rows c_s that are learned from a
few images. They start at the same rows phi_s of the encoded empty prompt.

Before training, the empty prompt of an encoder that shows padding stays as it is, and so does
every prompt whose padding does not depend on its words. Any other prompt loses what its last n
rows held of its words, and nothing else. Of an encoder that hides padding, n more rows are shown.
"""

import torch
from torch import Tensor, nn

from latent_ebm.conditions import Condition, Conditioner
from latent_ebm.text.encoder import TextConditioner
from latent_ebm.text.tokenizer import Tokenizer
from samplers.checks import check_counts, check_kind
from samplers.run_checks import is_readable


class SubjectConditioner(Conditioner):
    """Puts the ``rows`` of a subject in place of the last padding rows of every encoded prompt.

    Networks see these rows as they see tokens, in cross-attention and in the pooled text. The null
    is that of ``conditioner``, the encoded empty prompt without a subject: guidance leads to the
    subject and the text together. Rows are made in float32 at least: a step of the optimiser
    would not move those of a lower precision.

    Args:
        conditioner: What encodes prompts.
        num_rows: Number n of rows, 5 in the paper.

    Raises:
        ValueError: For a ``num_rows`` that leaves no room for a word.
    """

    start: Tensor

    def __init__(self, conditioner: TextConditioner, num_rows: int = 5) -> None:
        super().__init__()
        check_kind(self, TextConditioner, conditioner=conditioner)
        check_counts(self, num_rows=num_rows)
        check_size(num_rows, conditioner.encoder.tokenizer)
        self.conditioner, self.num_rows = conditioner, num_rows
        start = conditioner.unknown(1)["text"][0, -num_rows:].detach()
        start = start.to(torch.promote_types(start.dtype, torch.float32), copy=True)
        self.register_buffer("start", start)
        self.rows = nn.Parameter(start.clone())

    def forward(self, condition: Condition) -> Condition:
        """The ``text`` and ``mask`` of ``tokens`` (n, m), with the rows of the subject.

        Raises ``ValueError`` without tokens, or for a prompt without room for the subject.
        """
        return self.tell(condition, self.rows)

    def tell(self, condition: Condition, rows: Tensor) -> Condition:
        """Like ``forward``, with other ``rows`` (num_rows, dim)."""
        told = self.conditioner(condition)
        check_room(condition["tokens"], self.num_rows, self.conditioner.encoder.tokenizer)
        return with_rows(told, rows)

    def unknown(self, num: int) -> Condition:
        return self.conditioner.unknown(num)

    def in_turn(self, num: int) -> Condition:
        """Raises ``ValueError``, as ``TextConditioner`` does."""
        return self.conditioner.in_turn(num)


def with_rows(told: Condition, rows: Tensor) -> Condition:
    """``told``, with ``rows`` (n, dim) or (batch, n, dim) for the last rows of its ``text``
    (batch, m, dim), shown by its ``mask`` (batch, m).
    """
    text, mask = told["text"], told["mask"]
    num = rows.shape[-2]
    rows, shown = rows.expand(len(text), -1, -1), torch.ones_like(mask[:, -num:])
    changed = {
        "text": torch.cat([text[:, :-num], rows.to(text)], 1),
        "mask": torch.cat([mask[:, :-num], shown], 1),
    }
    return Condition({**told, **changed}, told.null)


def check_size(num_rows: int, tokenizer: Tokenizer) -> None:
    """Raise ``ValueError`` unless ``num_rows`` rows leave room for one token of a prompt."""
    most = tokenizer.max_tokens - tokenizer.num_marks - 1
    if num_rows > most:
        raise ValueError(
            f"num_rows must be at most {most}, for a prompt has {tokenizer.max_tokens} tokens "
            f"with its marks and needs one for a word, got {num_rows}"
        )


def check_room(tokens: Tensor, num_rows: int, tokenizer: Tokenizer) -> None:
    """Raise ``ValueError`` unless every row of ``tokens`` (n, m) ends in ``num_rows`` of
    padding.
    """
    if not is_readable(tokens) or not len(tokens):
        return
    spare = tokens.shape[1] - tokenizer.shown(tokens).sum(1)
    row = int(spare.argmin())
    if spare[row] < num_rows:
        raise ValueError(
            f"prompts[{row}] must leave {num_rows} of its {tokens.shape[1]} tokens to the "
            f"subject, got {int(spare[row])} to spare"
        )
