"""Which tokens end a generation: by key of the file, and by text where no key names them."""

from __future__ import annotations

from quantloom.text.vocabulary import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary

# Texts by which models of today mark the end of a turn or of the text, where no key names them.
_END_TEXTS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<|end_of_turn|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_utterance>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<turn|>",
    "<|fim_pad|>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
# Short enough to be plain text: they end a text only where the file marks them as special.
_END_TEXTS_IF_SPECIAL = ("</s>", "<eos>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "[e~[")
_END_OF_TURN_TEXTS = _END_TEXTS[:6]
# With these in the vocabulary <|end|> closes a message of several, not the answer.
_MESSAGE_MARKS = (("<|return|>", "<|call|>"), ("<|calls|>", "<|flush|>"))


def mark_ends(vocabulary: Vocabulary) -> None:
    """Gives the type control to tokens that end a turn but are not marked so in the file."""
    for text in _END_TEXTS:
        index = vocabulary.ids.get(text)
        if index is not None and vocabulary.types[index] in (0, NORMAL):
            vocabulary.types[index] = CONTROL


def find_end_of_turn(vocabulary: Vocabulary) -> int | None:
    """The token that closes the assistant's turn, or None."""
    found = (vocabulary.ids[text] for text in _END_OF_TURN_TEXTS if text in vocabulary.ids)
    return vocabulary.special.get("eot", next(found, None))


def find_stop_ids(vocabulary: Vocabulary) -> frozenset[int]:
    """Every token after which a generation is over."""
    ids = vocabulary.ids
    stops = {ids[text] for text in _END_TEXTS if text in ids}
    stops |= {
        ids[text]
        for text in _END_TEXTS_IF_SPECIAL
        if text in ids and vocabulary.types[ids[text]] in (CONTROL, UNKNOWN, USER_DEFINED)
    }
    roles = ("eos", "eot", "eom", "fim_pad", "fim_repository", "fim_separator")
    stops |= {vocabulary.special[role] for role in roles if role in vocabulary.special}
    if any(all(mark in ids for mark in marks) for marks in _MESSAGE_MARKS):
        stops.discard(ids.get("<|end|>", -1))
    return frozenset(stops)
