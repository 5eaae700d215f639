"""Chat messages as a chat template takes them. What cannot be carried is refused by name, never dropped. Pure."""

from __future__ import annotations

from typing import Any

from gateway import Chat, Message, Reasoning, Text, UnsupportedOption


def refuse_options(request: Chat, model: str) -> None:
    """UnsupportedOption for the first option of a chat that local models do not honour yet."""
    if request.tools:
        raise option(model, "tools")
    if request.response_format is not None:
        raise option(model, "response_format")
    if request.reasoning not in (None, "none"):
        raise option(model, "reasoning")


def template_messages(request: Chat, model: str) -> list[dict[str, Any]]:
    """One dict a message: role, content, and reasoning_content where an earlier turn has it.

    UnsupportedOption for images, sounds, tool calls and their results.
    """
    return [template_message(message, model) for message in request.messages]


def template_message(message: Message, model: str) -> dict[str, Any]:
    """One message. Texts are joined as `Message.text` joins them."""
    for part in message.parts:
        if not isinstance(part, (Text, Reasoning)):
            raise option(model, {"image": "images", "audio": "audio"}.get(part.type, "tools"))
    out: dict[str, Any] = {"role": message.role, "content": message.text}
    thoughts = "".join(part.text for part in message.parts if isinstance(part, Reasoning))
    if thoughts:
        out["reasoning_content"] = thoughts  # templates that show earlier thoughts look here; the others leave them out
    return out


def option(model: str, name: str) -> UnsupportedOption:
    """The error for an option that this plugin does not honour."""
    message = f"model {model!r} does not take {name}: ask without it, or ask another model"
    return UnsupportedOption(message, model=model, option=name)
