"""OpenTelemetry's GenAI attribute names (semantic conventions v1.41), all in this file; JsonLines writes them.

Content attributes (gen_ai.input.messages and the like) are never written.
Source: github.com/open-telemetry/semantic-conventions, docs/gen-ai, v1.41.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.events import Event

# Operation names of the convention; a task of a third party goes by its own name, as the convention allows.
OPERATIONS = {"chat": "chat", "generate": "text_completion", "embed": "embeddings"}


def attributes(event: Event) -> dict[str, Any]:
    """The event as span attributes; what is unknown is left out. Names beginning with ``gateway.`` are this project's own."""
    usage = event.usage
    operation = OPERATIONS.get(event.task, event.task)
    named: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": event.provider,
        "gen_ai.request.model": event.model,
        "gen_ai.response.model": event.served_by,
        "gen_ai.response.finish_reasons": [event.finish] if event.finish else None,
        "gen_ai.conversation.id": event.conversation,
        "gen_ai.request.max_tokens": event.max_tokens,
        "gen_ai.request.temperature": event.temperature,
        "gen_ai.request.top_p": event.top_p,
        "gen_ai.usage.input_tokens": usage.input_tokens if usage else None,
        "gen_ai.usage.output_tokens": usage.output_tokens if usage else None,
        "gen_ai.usage.cache_read.input_tokens": (usage.cached_tokens or None) if usage else None,
        "gen_ai.usage.cache_creation.input_tokens": (usage.cache_write_tokens or None) if usage else None,
        "gen_ai.usage.reasoning.output_tokens": (usage.reasoning_tokens or None) if usage else None,
        "error.type": event.error,
        "gateway.first_token_s": event.first_token_s,
        "gateway.cost_usd": usage.cost_usd if usage else None,
        "gateway.place": event.place,
        "gateway.stream": event.stream or None,
        "gateway.attempts": event.attempts or None,
        "gateway.tenant": event.tenant,
        "gateway.request_id": event.request_id or None,
        "gateway.notes": list(event.notes) or None,
    }
    return {name: value for name, value in named.items() if value not in (None, "")}


def span(event: Event) -> dict[str, Any]:
    """The event as one JSON object: span name, kind, end time (RFC 3339), duration in seconds, attributes."""
    operation = OPERATIONS.get(event.task, event.task) or event.kind
    return {
        "name": f"{operation} {event.model}".strip(),
        "kind": "INTERNAL" if event.place == "process" or event.kind != "attempt" else "CLIENT",
        "event": event.kind,
        "end_time": datetime.fromtimestamp(event.at, UTC).isoformat(),
        "gen_ai.client.operation.duration": event.seconds,
        "attributes": attributes(event),
    }


class JsonLines:
    """Appends each event to a file as one line of JSON. The file is opened on the first event and flushed at each."""

    name = "jsonl"

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._file: Any = None

    def on_event(self, event: Event) -> None:
        if self._file is None:
            self._file = self._path.open("a", encoding="utf-8")
        self._file.write(json.dumps(span(event), ensure_ascii=False, separators=(",", ":")) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
