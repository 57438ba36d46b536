"""`Tokenizer`: text to token ids and back, from nothing but the metadata of a GGUF file."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from quantloom import arguments
from quantloom.errors import InvalidArgument, TemplateError, TokenizerError
from quantloom.text import spm
from quantloom.text.bpe import ByteLevelMerges, byte_alphabet, checked_name, find_pre_tokenizer
from quantloom.text.chat import (
    ChatTemplate,
    chat_templates,
    check_messages,
    check_tools,
    compile_template,
    plain_value,
)
from quantloom.text.ends import find_end_of_turn, find_stop_ids, mark_ends
from quantloom.text.guard import can_be_hidden, hide, show
from quantloom.text.special import (
    PARSED_TYPES,
    SPECIAL_TYPES,
    name_pattern,
    split_at_names,
    takes_white_space,
)
from quantloom.text.streaming import StreamDecoder
from quantloom.text.vocabulary import BYTE, USER_DEFINED, Vocabulary, read_vocabulary


class Tokenizer:
    """Text to token ids and back.

    Made by :meth:`from_gguf` or :meth:`from_metadata`; safe to share between threads.

    Attributes:
        model: "gpt2", "llama" or "no_vocab", as `tokenizer.ggml.model` says.
        pre: name of the pre-tokenizer, or None.
        vocab_size: number of token ids.
        bos_id, eos_id, eot_id, eom_id, unknown_id, padding_id: ids, or None.
        stop_ids: every id that ends a generation.
        add_bos, add_eos: whether `encode` puts these around the text.
        chat_templates: sources of the file's chat templates by name; the unnamed one is "default".
    """

    def __init__(self, vocabulary: Vocabulary, metadata: Mapping[str, Any]) -> None:
        self._vocabulary = vocabulary
        self.model = vocabulary.model
        self.pre = vocabulary.pre
        self.vocab_size = vocabulary.vocab_size
        special = vocabulary.special
        self.bos_id = special.get("bos")
        self.eos_id = special.get("eos")
        self.eom_id = special.get("eom", vocabulary.ids.get("<|eom_id|>"))
        self.unknown_id = special.get("unknown")
        self.padding_id = special.get("padding")
        mark_ends(vocabulary)
        self.eot_id = find_end_of_turn(vocabulary)
        self.stop_ids = find_stop_ids(vocabulary)

        self._engine: ByteLevelMerges | spm.ScoreMerges | None = None
        add_bos = vocabulary.model == "llama"
        if vocabulary.model == "gpt2":
            row = find_pre_tokenizer(vocabulary.pre)
            self._engine = ByteLevelMerges(vocabulary, row)
            # A default of the name, not of the file: it cannot ask for a token that is not there.
            add_bos = row.add_bos and self.bos_id is not None
        elif vocabulary.model == "llama":
            self._engine = spm.ScoreMerges(vocabulary)
        self.add_bos = add_bos if vocabulary.add_bos is None else vocabulary.add_bos
        self.add_eos = bool(vocabulary.add_eos)
        self._alphabet = byte_alphabet()
        self._bytes: dict[int, bytes] = {}
        self._special_pattern = name_pattern(vocabulary, PARSED_TYPES)
        self._user_pattern = name_pattern(vocabulary, (USER_DEFINED,))
        self._strips = takes_white_space(metadata)
        self.chat_templates = chat_templates(metadata)
        self._compiled: dict[str, ChatTemplate] = {}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], *, pre: str | None = None) -> Tokenizer:
        """Builds the tokenizer from a mapping of GGUF keys to plain Python values.

        Args:
            metadata: str, int, float, bool and lists of them, by key.
            pre: name of a pre-tokenizer to use in place of the file's `tokenizer.ggml.pre`, which
                files of before May 2024 lack.

        Raises:
            InvalidArgument: `metadata` is no mapping, `pre` is no known name, or the vocabulary is
                not of byte-level BPE.
            TokenizerError: a key is missing or wrong (`subject` is the key, `limit` the bound), or
                the tokenizer or the pre-tokenizer is not one that quantloom serves.
        """
        if not isinstance(metadata, Mapping):
            raise InvalidArgument(
                f"metadata must be a mapping, not {type(metadata).__name__}", subject="metadata"
            )
        vocabulary = read_vocabulary(metadata)
        if pre is not None:
            vocabulary = replace(vocabulary, pre=checked_name(pre, vocabulary.model))
        return cls(vocabulary, metadata)

    @classmethod
    def from_gguf(cls, path: str | os.PathLike[str], *, pre: str | None = None) -> Tokenizer:
        """Builds the tokenizer of a GGUF file; the file may hold no weights.

        Raises:
            GGUFError: the file is not valid GGUF.
            InvalidArgument, TokenizerError: as in :meth:`from_metadata`.
        """
        import quantloom

        with quantloom.open(path) as file:
            return cls.from_metadata(file.metadata, pre=pre)

    def __getstate__(self) -> dict[str, Any]:
        """Without the compiled templates, which cannot be pickled; they are compiled when used."""
        return {**self.__dict__, "_compiled": {}}

    @property
    def chat_template(self) -> str | None:
        """Source of the file's unnamed chat template, or None."""
        return self.chat_templates.get("default")

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        pre = f", pre={self.pre!r}" if self.model == "gpt2" else ""
        return f"Tokenizer(model={self.model!r}{pre}, vocab_size={self.vocab_size})"

    def encode(self, text: str, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text.

        Args:
            text: any text; NUL is a character like others.
            add_special: put BOS and EOS around the text where the file asks for them.
            parse_special: read control tokens such as "<|im_end|>" inside the text as tokens. With
                False they are plain text; user-defined tokens are read either way.

        Raises:
            InvalidArgument: no text, or another choice than True or False.
            TokenizerError: the text has a lone surrogate, or the vocabulary cannot write it, or
                the file has no vocabulary.
        """
        self._check_text(text)
        add_special = arguments.flag("add_special", add_special)
        parse_special = arguments.flag("parse_special", parse_special)
        ids: list[int] = []
        if add_special and self.add_bos and self.bos_id is not None:
            ids.append(self.bos_id)
        self._encode_into(ids, text, self._special_pattern if parse_special else self._user_pattern)
        if add_special and self.add_eos and self.eos_id is not None:
            ids.append(self.eos_id)
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of token ids; bytes that are no UTF-8 become U+FFFD.

        Args:
            ids: token ids in order.
            skip_special: leave out control and unknown tokens; with False their names are written.

        Raises:
            InvalidArgument: no sequence of integers, or one that is outside the vocabulary.
        """
        data = self.decode_bytes(ids, skip_special=skip_special)
        return data.decode("utf-8", errors="replace")

    def decode_bytes(
        self,
        ids: Iterable[int],
        skip_special: bool = True,
        *,
        previous: int | None = None,
    ) -> bytes:
        """Bytes of token ids.

        A SentencePiece vocabulary with a space prefix loses one space where text begins: at the
        start, and behind a special token.

        Args:
            ids: token ids.
            skip_special: leave out control and unknown tokens.
            previous: the token before the first of `ids`, when they continue others.

        Raises:
            InvalidArgument: as for :meth:`decode`.
        """
        skip_special = arguments.flag("skip_special", skip_special)
        return self._joined(arguments.token_items("ids", ids), skip_special, previous)

    def _joined(self, ids: Iterable[int], skip_special: bool, previous: int | None) -> bytes:
        types = self._vocabulary.types
        parts: list[bytes] = []
        for index in ids:
            piece = self.token_bytes(index)
            special = types[index] in SPECIAL_TYPES
            if not (special and skip_special):
                parts.append(self._at_start(piece, index, previous))
            previous = index
        return b"".join(parts)

    def stream_decoder(
        self, *, skip_special: bool = True, previous: int | None = None
    ) -> StreamDecoder:
        """A decoder that takes ids one by one and never gives half a character."""
        return StreamDecoder(self, skip_special=skip_special, previous=previous)

    def token_bytes(self, index: int) -> bytes:
        """The bytes one token stands for; a special token stands for its name.

        Raises:
            InvalidArgument: the id is outside the vocabulary.
        """
        index = self._checked(index)
        known = self._bytes.get(index)
        if known is None:
            known = self._bytes[index] = self._spell(index)
        return known

    def token_text(self, index: int) -> str:
        """A token as the file writes it."""
        return self._vocabulary.tokens[self._checked(index)]

    def token_id(self, text: str) -> int | None:
        """Id of the token that the file writes as `text`, or None."""
        return self._vocabulary.ids.get(text)

    def is_special(self, index: int) -> bool:
        """Whether a token is of type control or unknown, and so no part of the text."""
        return self._vocabulary.types[self._checked(index)] in SPECIAL_TYPES

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        template: str | None = None,
        **variables: Any,
    ) -> str:
        """The prompt that the file's chat template makes of messages, as text.

        :meth:`encode_messages` gives its tokens, and keeps apart what messages say.

        Args:
            messages: mappings with "role" and "content" (a string or a list of text parts).
            add_generation_prompt: end with the words that open the assistant's answer.
            tools: JSON descriptions of functions that the model may call.
            template: name of one of `chat_templates`; by default "tool_use" when there are tools
                and the file has it, or else "default".
            variables: further variables of the template.

        Raises:
            InvalidArgument: the messages or tools are not of that form, or `template` is no string.
            TemplateError: the file has no chat template, or it fails or passes a cap.
        """
        return self._template(template, tools).render(
            messages, add_generation_prompt=add_generation_prompt, tools=tools, **variables
        )

    def encode_messages(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        template: str | None = None,
        **variables: Any,
    ) -> list[int]:
        """Token ids of the prompt that the file's chat template makes of messages.

        A name of a control token, such as "<|im_end|>", that one string of the messages, tools or
        variables holds is text. A name that the template itself puts together, such as
        "<|" + message.role + "|>", is the token, whatever the role is; so is one whose parts it
        takes from several strings or cuts out of them. BOS is put first where the file asks for
        it and the template does not write it.

        Args and errors are those of :meth:`apply_chat_template` and :meth:`encode`.
        """
        names = self._control_names
        messages, tools = check_messages(messages), check_tools(tools)
        variables = plain_value(variables, "variables")
        if names is not None:
            messages, tools, variables = (
                hide(value, names) for value in (messages, tools, variables)
            )
        text = self.apply_chat_template(
            messages, add_generation_prompt, tools, template=template, **variables
        )
        self._check_text(text)
        ids: list[int] = []
        self._encode_into(ids, text, self._special_pattern, hidden=names is not None)
        if self.add_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        return ids

    @cached_property
    def _control_names(self) -> re.Pattern[str] | None:
        return name_pattern(self._vocabulary, SPECIAL_TYPES, can_be_hidden)

    def _template(
        self, given: str | None, tools: Sequence[Mapping[str, Any]] | None
    ) -> ChatTemplate:
        if given is not None:
            name = arguments.text("template", given)
        else:
            name = "tool_use" if tools and "tool_use" in self.chat_templates else "default"
        if name not in self._compiled:
            if name not in self.chat_templates:
                there = ", ".join(sorted(self.chat_templates)) or "none"
                raise TemplateError(
                    f"the file has no chat template {name!r} (it has: {there}); "
                    "give a plain prompt instead of messages",
                    subject="tokenizer.chat_template",
                )
            self._compiled[name] = compile_template(self.chat_templates[name], self._vocabulary)
        return self._compiled[name]

    def _check_text(self, text: str) -> None:
        if not isinstance(text, str):
            raise InvalidArgument(
                f"text must be a string, not {type(text).__name__}", subject="text"
            )
        if self._engine is None:
            self._refuse()
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"text has a lone surrogate U+{ord(text[error.start]):04X} at character "
                f"{error.start}, which no encoding of Unicode can hold",
                subject="text",
                limit=error.start,
            ) from None

    def _refuse(self) -> None:
        raise TokenizerError(
            "the file has no vocabulary (tokenizer.ggml.model is no_vocab): "
            "give and take token ids instead of text",
            subject="tokenizer.ggml.model",
        )

    def _checked(self, index: int) -> int:
        if self.model == "no_vocab":
            self._refuse()
        try:
            plain = operator.index(index)
        except TypeError:
            plain = None
        if plain is None or isinstance(index, bool):
            raise InvalidArgument(
                f"a token id must be an integer, not {type(index).__name__}", subject="ids"
            )
        if not 0 <= plain < self.vocab_size:
            raise InvalidArgument(
                f"token id {plain} is outside the vocabulary of {self.vocab_size} tokens",
                subject="ids",
                limit=self.vocab_size,
            )
        return plain

    def _spell(self, index: int) -> bytes:
        text = self._vocabulary.tokens[index]
        kind = self._vocabulary.types[index]
        if kind == BYTE:
            return bytes((int(text[3:5], 16),))
        if kind in PARSED_TYPES:
            return text.encode(errors="replace")
        if self.model == "llama":
            return text.replace(spm.SPACE, " ").encode(errors="replace")
        try:
            return bytes(map(self._alphabet.__getitem__, text))
        except KeyError:
            return text.encode(errors="replace")

    def _at_start(self, piece: bytes, index: int, previous: int | None) -> bytes:
        types = self._vocabulary.types
        if (
            self._vocabulary.add_space_prefix
            and self.model == "llama"
            and (previous is None or types[previous] in PARSED_TYPES)
            and types[index] not in PARSED_TYPES
        ):
            return piece.removeprefix(b" ")
        return piece

    def _encode_into(
        self, ids: list[int], text: str, pattern: re.Pattern[str] | None, hidden: bool = False
    ) -> None:
        shown = show if hidden else str
        for piece, is_name in split_at_names(text, pattern, self._strips):
            if is_name:
                ids.append(self._vocabulary.ids[piece])
            else:
                self._encode_plain(ids, shown(piece))

    def _encode_plain(self, ids: list[int], text: str) -> None:
        if self.model == "llama":
            if self._vocabulary.remove_extra_whitespaces:
                text = re.sub(" +", " ", text).strip(" ")
            if self._vocabulary.add_space_prefix and text:
                text = " " + text
            text = text.replace(" ", spm.SPACE)
        if self._engine is not None:
            ids += self._engine.encode(text)
