"""Chat templates: messages to one prompt, by a template that came with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from quantloom import arguments
from quantloom.errors import InvalidArgument, TemplateError, TokenizerError
from quantloom.text.budget import OUTPUT_CHARACTERS, SECONDS, Budget
from quantloom.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from jinja2 import Template

# Compiling this much takes a second or two; the longest templates of today have half of it.
TEMPLATE_CHARACTERS = 64 << 10
_DEPTH = 64
_KEY = "tokenizer.chat_template"
# Arguments of Hugging Face's apply_chat_template that a template would take no notice of.
_OF_OTHERS = dict.fromkeys(
    ("tokenize", "return_dict", "return_tensors", "return_assistant_tokens_mask"),
    "the result is text; Tokenizer.encode_messages gives tokens",
) | {
    "continue_final_message": "render without a generation prompt and cut the text instead",
    "chat_template": "template=NAME chooses one of the file's, quantloom.text.ChatTemplate "
    "renders any source",
}


class ChatTemplate:
    """One compiled chat template; safe to share between threads.

    The template runs in a jinja2 sandbox with caps on its own size, on time, on the text it
    writes and on what it builds on the way.

    Args:
        source: the jinja2 source.
        bos_token, eos_token: texts that the template may write.
        variables: variables that every rendering sees.
        seconds: wall-clock time one rendering may take.
        output: characters one rendering may write, beyond four times its input.

    Raises:
        TemplateError: the source is longer than 64 Ki characters or is no valid template.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        variables: Mapping[str, Any] | None = None,
        seconds: float = SECONDS,
        output: int = OUTPUT_CHARACTERS,
    ) -> None:
        from quantloom.text.sandbox import CappedEnvironment

        if len(source) > TEMPLATE_CHARACTERS:
            raise TemplateError(
                f"the chat template has {len(source)} characters; the cap is {TEMPLATE_CHARACTERS}",
                subject=_KEY,
                limit=TEMPLATE_CHARACTERS,
            )
        self.source = source
        self._variables = {"bos_token": bos_token, "eos_token": eos_token, **(variables or {})}
        self._seconds = seconds
        self._output = output
        self._environment = CappedEnvironment()
        with self._environment.spending(Budget(seconds=seconds, output=output)):
            self._template = self._compile()
        self._takes_parts = self._reads_parts_alone()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """The prompt for a conversation.

        Args:
            messages: mappings with "role" (a string) and "content" (a string, None, or a list of
                text parts, which are joined); a template that reads parts alone gets the text as
                one part, and one that cannot take None, or writes that word, gets "". Other keys
                reach the template as they are.
            add_generation_prompt: end with the words that open the assistant's answer.
            tools: JSON descriptions of functions that the model may call.
            variables: further variables: JSON values.

        Raises:
            InvalidArgument: the messages or tools are not of that form, or a variable is an
                argument by which other libraries ask for something else than text; `subject` says
                which.
            TemplateError: the template fails, refuses the messages, or passes a cap.
        """
        checked = [self._without_none(message) for message in check_messages(messages)]
        if self._takes_parts:
            checked = [_in_parts(message) for message in checked]
        values: dict[str, Any] = {
            **self._variables,
            "messages": checked,
            "tools": check_tools(tools),
            "documents": None,
            "add_generation_prompt": arguments.flag("add_generation_prompt", add_generation_prompt),
        }
        for name, value in variables.items():
            if value and name in _OF_OTHERS:
                raise _wrong(name, f"is no variable of a chat template: {_OF_OTHERS[name]}")
            values[name] = plain_value(value, name)
        return self._write(values)

    def _write(self, values: dict[str, Any]) -> str:
        parts: list[str] = []
        budget = Budget(_size(values), seconds=self._seconds, output=self._output)
        try:
            with self._environment.spending(budget):
                for part in self._template.generate(values):
                    budget.write(len(part))
                    parts.append(part)
        except TemplateError:
            raise
        except Exception as error:
            raise _failure(error) from error
        return "".join(parts)

    def _reads_parts_alone(self) -> bool:
        """Whether the template loses content that is a string, and keeps it as a list of parts."""
        word = "Nightingale"
        message = {"role": "user", "content": word}
        values = {**self._variables, "tools": None, "documents": None}
        values["add_generation_prompt"] = True
        try:
            if word in self._write({**values, "messages": [message]}):
                return False
        except TemplateError as error:
            if error.limit is not None:  # a cap, which the rendering passes too
                return False
        try:
            return word in self._write({**values, "messages": [_in_parts(message)]})
        except TemplateError:
            return False

    def _without_none(self, message: dict[str, Any]) -> dict[str, Any]:
        if "content" not in message or message["content"] is not None:
            return message
        if message["role"] == "assistant":
            called = bool(message.get("tool_calls"))
            if self._takes_none_with_calls if called else self._takes_none_alone:
                return message
        return {**message, "content": ""}

    @cached_property
    def _takes_none_alone(self) -> bool:
        return self._takes_none({})

    @cached_property
    def _takes_none_with_calls(self) -> bool:
        calls = (
            {"id": "callprobe", "type": "function", "function": {"name": "f", "arguments": values}}
            for values in ({"x": 1}, '{"x": 1}')  # each is what some templates cannot take
        )
        return any(self._takes_none({"tool_calls": [call]}) for call in calls)

    def _takes_none(self, keys: dict[str, Any]) -> bool:
        """Whether an answer with these keys and no content renders without a word for that."""
        values = {**self._variables, "tools": None, "documents": None}
        values["add_generation_prompt"] = True
        words = []
        for content in (None, ""):
            answer = {"role": "assistant", "content": content, **keys}
            try:
                text = self._write(
                    {**values, "messages": [{"role": "user", "content": "Hi"}, answer]}
                )
            except TemplateError:
                return content == ""  # then None, which comes first, went well
            words.append(text.count("None"))
        return words[0] <= words[1]

    def _compile(self) -> Template:
        try:
            return self._environment.from_string(self.source)
        except TemplateError:
            raise
        except Exception as error:
            raise _failure(error) from error


def check_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies messages into plain dictionaries, with lists of text parts joined to one string.

    Raises:
        InvalidArgument: a message is not of the form that :meth:`ChatTemplate.render` takes.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise _wrong("messages", f"must be a list of messages, not {type(messages).__name__}")
    if not messages:
        raise _wrong("messages", "must hold one message at least")
    checked: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, Mapping):
            raise _wrong(where, f"must be a mapping, not {type(message).__name__}")
        role = message.get("role")
        if not isinstance(role, str) or not role:
            raise _wrong(f"{where}['role']", f"must be a string such as 'user', not {role!r}")
        if "content" not in message and "tool_calls" not in message:
            raise _wrong(f"{where}['content']", "is missing")
        plain: dict[str, Any] = plain_value(message, where)
        if "content" in message:
            plain["content"] = _content(message["content"], f"{where}['content']")
        checked.append(plain)
    return checked


def check_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Copies tools into plain dictionaries; None stays.

    Raises:
        InvalidArgument: they are no sequence of mappings that are JSON.
    """
    if tools is None:
        return None
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise _wrong("tools", f"must be a list of mappings, not {type(tools).__name__}")
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise _wrong(f"tools[{index}]", f"must be a mapping, not {type(tool).__name__}")
    return [plain_value(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def _in_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, str):
        return dict(message)
    return {**message, "content": [{"type": "text", "text": content}]}


def _content(content: Any, where: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, (bytes, Mapping)) or not isinstance(content, Sequence):
        raise _wrong(where, f"must be text or a list of parts, not {type(content).__name__}")
    parts: list[str] = []
    for index, part in enumerate(content):
        if isinstance(part, str):
            parts.append(part)
            continue
        at = f"{where}[{index}]"
        if not isinstance(part, Mapping):
            raise _wrong(at, f"must be text or a mapping, not {type(part).__name__}")
        if part.get("type", "text") != "text":
            raise _wrong(at, f"is of type {part['type']!r}; only 'text' parts are served")
        if not isinstance(part.get("text"), str):
            raise _wrong(f"{at}['text']", f"must be a string, not {part.get('text')!r}")
        parts.append(part["text"])
    return "".join(parts)


def plain_value(value: Any, where: str, depth: int = 0) -> Any:
    """A copy of a JSON value in plain dictionaries, lists, strings and numbers.

    Raises:
        InvalidArgument: it is none, or is nested too deep; `subject` begins with `where`.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if depth > _DEPTH:
        raise _wrong(where, f"is nested deeper than {_DEPTH} levels")
    if isinstance(value, Mapping):
        plain = {}
        for key, entry in value.items():
            if not isinstance(key, str):
                raise _wrong(where, f"has the key {key!r}, which is no string")
            plain[key] = plain_value(entry, f"{where}[{key!r}]", depth + 1)
        return plain
    if isinstance(value, (list, tuple)):
        return [plain_value(entry, f"{where}[{i}]", depth + 1) for i, entry in enumerate(value)]
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise _wrong(where, f"must be a JSON value, not {type(value).__name__}")


def _size(value: Any) -> int:
    if isinstance(value, str):
        return 1 + len(value)
    if isinstance(value, dict):
        return 1 + sum(len(key) + _size(entry) for key, entry in value.items())
    if isinstance(value, list):
        return 1 + sum(map(_size, value))
    return 1


def _wrong(where: str, what: str) -> InvalidArgument:
    return InvalidArgument(f"{where} {what}", subject=where)


def _failure(error: Exception) -> TemplateError:
    line = getattr(error, "lineno", None)
    place = f" at line {line}" if line else ""
    return TemplateError(
        f"the chat template fails{place}: {type(error).__name__}: {str(error)[:500]}",
        subject=_KEY,
    )


def chat_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Sources of a file's chat templates by name; the unnamed one is "default".

    Raises:
        TokenizerError: one is no string.
    """
    templates: dict[str, str] = {}
    # Not items(): a mapping over a file would read every array of it.
    for name in metadata:
        if name != _KEY and not name.startswith(_KEY + "."):
            continue
        value = metadata[name]
        if not isinstance(value, str):
            raise TokenizerError(
                f"{name} must be a string, not {type(value).__name__}", subject=name
            )
        templates[name[len(_KEY) + 1 :] or "default"] = value
    return templates


def compile_template(source: str, vocabulary: Vocabulary) -> ChatTemplate:
    """A file's chat template with the texts of the file's special tokens as its variables.

    Raises:
        TemplateError: as for :class:`ChatTemplate`.
    """
    special = vocabulary.special
    tokens = vocabulary.tokens
    return ChatTemplate(
        source,
        bos_token=tokens[special["bos"]] if "bos" in special else "",
        eos_token=tokens[special["eos"]] if "eos" in special else "",
        variables={
            f"{word}_token": tokens[special[role]]
            for role, word in (("unknown", "unk"), ("padding", "pad"))
            if role in special
        },
    )
