"""Small vocabularies, each with every kind of token."""

from __future__ import annotations

from typing import Any

from quantloom.text.bpe import byte_alphabet

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def bpe_metadata(pre: str = "gpt-2") -> dict[str, Any]:
    """A byte-level vocabulary: 256 bytes, a few merges, two control and one user-defined token."""
    letters = {byte: letter for letter, byte in byte_alphabet().items()}
    tokens = [letters[byte] for byte in range(256)]
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2", "12 3", "Ã ©", "' s", "A B"]
    tokens += [merge.replace(" ", "") for merge in merges]
    tokens += ["<|im_start|>", "<|im_end|>", "<tool>"]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (len(tokens) - 3) + [3, 3, 4],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": len(tokens) - 3,
        "tokenizer.ggml.eos_token_id": len(tokens) - 2,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def spm_metadata() -> dict[str, Any]:
    """A SentencePiece-style vocabulary: specials, 256 bytes and a few scored pieces."""
    scored = {"▁": -1.0, "a": -2.0, "b": -3.0, "▁a": -4.0, "ab": -5.0, "ba": -5.0, "aba": -9.0}
    scored |= {"é": -6.0, "▁▁": -7.0, "bb": -5.0}
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *scored,
        "<tool>",
    ]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + list(scored.values()) + [0.0],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(scored) + [4],
    }
