"""Chat messages as a chat template takes them. What cannot be carried is refused by name, never dropped. Pure."""

from __future__ import annotations

from typing import Any

from gateway import Chat, Citation, Message, Options, Reasoning, Text, UnsupportedOption

HINT = "ask without it, or ask another model"


def refuse_options(request: Chat, options: Options) -> None:
    """UnsupportedOption for the first option of a chat that local models do not honour yet."""
    if request.tools:
        options.refuse("tools", HINT)
    if request.reasoning not in (None, "none"):
        options.refuse("reasoning", HINT, tunes=True)


def template_messages(request: Chat, model: str) -> list[dict[str, Any]]:
    """One dict a message: role, content, and reasoning_content where an earlier turn has it.

    UnsupportedOption for images, sounds, tool calls and their results.
    """
    return [template_message(message, model) for message in request.messages]


def template_message(message: Message, model: str) -> dict[str, Any]:
    """One message. Texts are joined as `Message.text` joins them."""
    for part in message.parts:
        if not isinstance(part, (Text, Reasoning, Citation)):
            name = {"image": "images", "audio": "audio", "file": "files"}.get(part.type, "tools")
            raise UnsupportedOption(f"model {model!r} cannot take {name}: {HINT}", model=model, option=name)
    out: dict[str, Any] = {"role": message.role, "content": message.text}
    thoughts = "".join(part.text for part in message.parts if isinstance(part, Reasoning))
    if thoughts:
        out["reasoning_content"] = thoughts  # templates that show earlier thoughts look here; the others leave them out
    return out
