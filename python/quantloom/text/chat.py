"""Chat templates: messages to one prompt, by a template that came with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quantloom.errors import InvalidArgument, TemplateError
from quantloom.text.budget import OUTPUT_CHARACTERS, SECONDS, Budget

if TYPE_CHECKING:
    from jinja2 import Template

# Compiling this much takes a second or two; the longest templates of today have half of it.
TEMPLATE_CHARACTERS = 64 << 10
_DEPTH = 64
_KEY = "tokenizer.chat_template"


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
                text parts, which are joined); other keys reach the template as they are.
            add_generation_prompt: end with the words that open the assistant's answer.
            tools: JSON descriptions of functions that the model may call.
            variables: further variables: JSON values.

        Raises:
            InvalidArgument: the messages are not of that form; `subject` says which part.
            TemplateError: the template fails, refuses the messages, or passes a cap.
        """
        values: dict[str, Any] = {
            **self._variables,
            "messages": check_messages(messages),
            "tools": None if tools is None else _plain(tools, "tools"),
            "documents": None,
            "add_generation_prompt": bool(add_generation_prompt),
        }
        for name, value in variables.items():
            values[name] = _plain(value, name)
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
        plain: dict[str, Any] = _plain(message, where)
        if "content" in message:
            plain["content"] = _content(message["content"], f"{where}['content']")
        checked.append(plain)
    return checked


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


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    if value is None or type(value) in (str, int, float, bool):
        return value
    if depth > _DEPTH:
        raise _wrong(where, f"is nested deeper than {_DEPTH} levels")
    if isinstance(value, Mapping):
        plain = {}
        for key, entry in value.items():
            if not isinstance(key, str):
                raise _wrong(where, f"has the key {key!r}, which is no string")
            plain[key] = _plain(entry, f"{where}[{key!r}]", depth + 1)
        return plain
    if isinstance(value, (list, tuple)):
        return [_plain(entry, f"{where}[{i}]", depth + 1) for i, entry in enumerate(value)]
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
