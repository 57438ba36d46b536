"""Text: tokenizers, chat templates and streaming, in Python over a mapping of GGUF metadata."""

from quantloom.text.chat import ChatTemplate
from quantloom.text.pretokenizers import PRE_TOKENIZERS, PreTokenizer
from quantloom.text.streaming import StopMatcher, StreamDecoder
from quantloom.text.tokenizer import Tokenizer

__all__ = [
    "PRE_TOKENIZERS",
    "ChatTemplate",
    "PreTokenizer",
    "StopMatcher",
    "StreamDecoder",
    "Tokenizer",
]
