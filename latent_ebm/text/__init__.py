"""Text as a condition: prompts to tokens, tokens to vectors, vectors to conditions of networks."""

from latent_ebm.text.encoder import TextConditioner, TextEncoder, TextTransformer
from latent_ebm.text.folding import Folded, fold
from latent_ebm.text.pretrained import load_text_encoder, load_tokenizer
from latent_ebm.text.subject import SubjectConditioner
from latent_ebm.text.terms import Match, TermSearch
from latent_ebm.text.tokenizer import Tokenizer, WordTokenizer
from latent_ebm.text.wordllama import SubwordTokenizer, subword_encoder

__all__ = [
    "Folded",
    "Match",
    "SubjectConditioner",
    "SubwordTokenizer",
    "TermSearch",
    "TextConditioner",
    "TextEncoder",
    "TextTransformer",
    "Tokenizer",
    "WordTokenizer",
    "fold",
    "load_text_encoder",
    "load_tokenizer",
    "subword_encoder",
]
