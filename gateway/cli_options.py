"""What the commands take: options that become a Need, a Meta and a Request, declared once and shared by commands."""

from __future__ import annotations

import base64
import inspect
import json
import mimetypes
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import typer

from gateway.card import Need
from gateway.errors import ConfigError, InvalidRequest
from gateway.parts import Audio, File, Image, Media
from gateway.request import Meta, Request
from gateway.tasks import Chat
from gateway.wire import from_wire, tasks

NEED = "What the model must be"
FIELDS = "The request"
META = "About the call"

KINDS: Mapping[str, type[Media]] = {"image": Image, "audio": Audio, "file": File}
NAMED = {"image": "an image, as .png", "audio": "a sound, as .wav", "file": "a known kind of document, as .pdf"}
UNITS = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def takes(**sources: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace each named parameter of a command with the options of the function that makes it."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        makers = {name: inspect.signature(source, eval_str=True).parameters for name, source in sources.items()}

        def run(**given: Any) -> None:
            for name, options in makers.items():
                given[name] = sources[name](**{option: given.pop(option) for option in options})
            command(**given)

        kept = [parameter for name, parameter in own.items() if name not in makers]
        kept += [parameter for options in makers.values() for parameter in options.values()]
        kept = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in kept]
        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in kept}
        run.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
        return run

    return decorate


Task = Annotated[str, typer.Argument(metavar="TASK", show_default=False, help="chat, embed, generate, or a plugin's own task.")]


def amount(text: str) -> float:
    """A number such as 8e9, 8B, 500M or 16GiB."""
    found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)\s*([KMBGT]?I?)B?", text.strip().upper().replace("E", "e"))
    if found is None or found[2] not in UNITS:
        raise ValueError("not a number such as 8e9, 8B or 16GiB")
    return float(found[1]) * UNITS[found[2]]


def _amount(text: str) -> float:
    try:
        return amount(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Names = list[str] | None


def _need(help: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=NEED)


def _size(help: str) -> Any:
    return typer.Option(parser=_amount, help=help, metavar="N", rich_help_panel=NEED)


def need_of(
    route: Annotated[str, _need("Take this route of gateway.toml.", metavar="NAME")] = "",
    model: Annotated[Names, _need("This model, or a pattern such as 'local-*'.", "--model", "-m", metavar="NAME")] = None,
    avoid: Annotated[Names, _need("Not this model or pattern.", metavar="NAME")] = None,
    place: Annotated[Names, _need("local, process, host, private or hosted.", metavar="PLACE")] = None,
    max_params: Annotated[float | None, _size("At most so many parameters: 8B.")] = None,
    min_params: Annotated[float | None, _size("At least so many.")] = None,
    max_bytes: Annotated[float | None, _size("Weights of at most: 16GB.")] = None,
    context: Annotated[int | None, _need("At least so many tokens of context.", metavar="TOKENS")] = None,
    feature: Annotated[Names, _need("Can do this: tools, json_schema, ...", metavar="NAME")] = None,
    language: Annotated[Names, _need("Speaks this: en, de, ...", metavar="TAG")] = None,
    max_first_token_s: Annotated[float | None, _need("Seconds to the first token, as predicted.", metavar="S")] = None,
    max_latency_s: Annotated[float | None, _need("Seconds to the whole answer, as predicted.", metavar="S")] = None,
    percentile: Annotated[
        float | None, _need("Share of the requests that the seconds are to hold for: 0.95.", metavar="P")
    ] = None,
    max_cost_usd: Annotated[float | None, _need("Cost of the request, as predicted.", metavar="USD")] = None,
    min_quality: Annotated[float | None, _need("Quality from 0 to 1.", metavar="Q")] = None,
    need: Annotated[Names, _need("Any of these by its field's name: max_params=8B.", metavar="FIELD=VALUE")] = None,
) -> Need:
    """The Need that the options state."""
    given: dict[str, Any] = {
        "route": route, "model": tuple(model or ()), "avoid": tuple(avoid or ()), "place": tuple(place or ()),
        "max_params": max_params, "min_params": min_params, "max_bytes": max_bytes, "context": context,
        "features": frozenset(feature or ()), "languages": frozenset(language or ()),
        "max_first_token_s": max_first_token_s, "max_latency_s": max_latency_s, "max_cost_usd": max_cost_usd,
        "percentile": percentile, "min_quality": min_quality,
    }  # fmt: skip
    for key, value in pairs(need or (), "--need").items():
        if key not in given:
            raise InvalidRequest(f"need has no field {key!r}; it has: {', '.join(given)}", field=f"need.{key}")
        kind = type(given[key])
        try:
            given[key] = kind(value.split(",")) if kind in (tuple, frozenset) else value if kind is str else amount(value)
        except ValueError as error:
            raise InvalidRequest(f"need.{key}: {error}", field=f"need.{key}") from None
    if isinstance(given["context"], float):
        given["context"] = int(given["context"])
    return Need(**given)


def meta_of(
    deadline_s: Annotated[float | None, typer.Option(metavar="S", help="Seconds for everything.", rich_help_panel=META)] = None,
    tenant: Annotated[str, typer.Option(help="On whose behalf.", rich_help_panel=META)] = "",
    data_class: Annotated[str, typer.Option(help="How sensitive the input is.", rich_help_panel=META)] = "",
    conversation: Annotated[str, typer.Option(help="Which conversation it belongs to.", rich_help_panel=META)] = "",
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin again when the stream of an answer breaks.", rich_help_panel=META)
    ] = False,
) -> Meta:
    """The Meta that the options state."""
    return Meta(deadline_s=deadline_s, tenant=tenant, data_class=data_class, conversation=conversation, restart=restart)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was typed of the request beside its input: `fields` by option, `sets` by --set, and files."""

    system: str = field(default="", repr=False)
    media: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sets: Mapping[str, Any] = field(default_factory=dict, repr=False)


def _field(help: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=FIELDS)


def _file(help: str) -> Any:
    return typer.Option(exists=True, dir_okay=False, help=help, metavar="FILE", rich_help_panel=FIELDS)


def given_of(
    system: Annotated[str, _field("System message.", "--system", "-s", metavar="TEXT")] = "",
    image: Annotated[list[Path] | None, _file("Show this image.")] = None,
    audio: Annotated[list[Path] | None, _file("Play this sound.")] = None,
    file: Annotated[list[Path] | None, _file("Attach this document.")] = None,
    schema: Annotated[Path | None, _file("Answer with JSON of this JSON Schema.")] = None,
    max_tokens: Annotated[int | None, _field("Answer with at most so many tokens.", metavar="N")] = None,
    temperature: Annotated[float | None, _field("From 0 to 2.", metavar="T")] = None,
    top_p: Annotated[float | None, _field("Above 0, up to 1.", metavar="P")] = None,
    stop: Annotated[Names, _field("End the answer before this.", metavar="TEXT")] = None,
    seed: Annotated[int | None, _field("Seed of the sampling.", metavar="N")] = None,
    reasoning: Annotated[str | None, _field("none, minimal, low, medium or high.", metavar="EFFORT")] = None,
    dimensions: Annotated[int | None, _field("Shorten each vector to so many numbers.", metavar="N")] = None,
    set_: Annotated[Names, _field("Any field of the task; JSON, or else a string.", "--set", metavar="FIELD=VALUE")] = None,
) -> Given:
    """The fields that the options state."""
    options = {
        "max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "stop": stop or None, "seed": seed,
        "reasoning": reasoning, "dimensions": dimensions,
        "response_format": None if schema is None else _schema(schema),
    }  # fmt: skip
    return Given(
        system=system,
        media=tuple(
            media_part(path, kind) for paths, kind in ((image, Image), (audio, Audio), (file, File)) for path in paths or ()
        ),
        fields={name: value for name, value in options.items() if value is not None},
        sets={key: _json_or_text(value) for key, value in pairs(set_ or (), "--set").items()},
    )


def request_of(task: str, text: str | None, given: Given, *, literal: bool = False) -> Request[Any]:
    """The request that was typed. InvalidRequest names an unknown task or field with what exists. `literal`: no "-" in it."""
    kind, body = _begun(task, given)
    if issubclass(kind, Chat):
        if "messages" not in body:
            said = read_input(text, may_be_empty=bool(given.media), literal=literal)
            user = [*([{"type": "text", "text": said}] if said else ()), *given.media]
            system = [{"role": "system", "parts": [{"type": "text", "text": given.system}]}] if given.system else []
            body["messages"] = [*system, {"role": "user", "parts": user}]
    else:
        _fill(kind, body, text, given, literal)
    return _made(task, body)


class Lines:
    """The requests in a file, or on standard input for "-": one a line, made when it is asked for.

    A line that begins with "{" is a JSON object of the task's fields, any other one is the input. The error of a wrong line,
    which says which it is, stands in the place of its request. InvalidRequest, before there is a line, for what would be
    wrong in all of them.
    """

    def __init__(self, task: str, file: str, given: Given) -> None:
        _begun(task, given)
        if file == "-" and (sys.stdin is None or sys.stdin.isatty()):
            raise InvalidRequest("give a file of inputs after the task, or pipe them in", field="file")
        self._task, self._given = task, given
        self._path = None if file == "-" else Path(file)
        if self._path is not None:
            self._path.open("rb").close()  # now: what cannot be read is no matter of a request

    def __iter__(self) -> Iterator[Request[Any] | InvalidRequest]:
        with nullcontext(sys.stdin.buffer) if self._path is None else self._path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield self._request(line)
                except InvalidRequest as error:
                    yield InvalidRequest(f"line {number}: {error.message}", field=error.field)
                except OSError as error:  # the line names a file
                    why = error.strerror or type(error).__name__
                    yield InvalidRequest(f"line {number}: {error.filename!r}: {why}", field="input")

    def __length_hint__(self) -> int:
        if self._path is None or not self._path.is_file():
            return cast(int, NotImplemented)
        with self._path.open("rb") as lines:
            return sum(1 for _ in lines)

    def _request(self, line: bytes) -> Request[Any]:
        try:
            text = line.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise InvalidRequest("the line is not UTF-8 text", field="input") from None
        if not text.lstrip().startswith("{"):
            return request_of(self._task, text, self._given, literal=True)
        if self._given.system or self._given.media:
            what = "a line of JSON is the whole request: a system message, or a file, goes with lines of text only"
            raise InvalidRequest(what, field="system" if self._given.system else "media")
        try:
            sets = json.loads(text)
        except (ValueError, RecursionError) as error:
            where = f" from column {error.colno} on" if isinstance(error, json.JSONDecodeError) else ""
            hint = "mend it, or put a text that begins so into a field of one"
            raise InvalidRequest(f'it begins with "{{" and is no JSON object{where}: {hint}', field="input") from None
        return _made(self._task, _begun(self._task, replace(self._given, sets={**self._given.sets, **sets}))[1])


def _begun(task: str, given: Given) -> tuple[type[Request[Any]], dict[str, Any]]:
    """The task's class, and the fields that the options state."""
    known = tasks()
    if task not in known:
        raise InvalidRequest(f"unknown task {task!r}; there are: {', '.join(sorted(known))}", field="task")
    kind = known[task]
    names = [f.name for f in fields(kind) if f.name != "meta"]
    body = {**given.fields, **given.sets}
    for name in body:
        if name not in names:
            raise InvalidRequest(f"the task {task!r} has no field {name!r}; it has: {', '.join(names)}", field=name)
    if given.system and not issubclass(kind, Chat):
        raise InvalidRequest(f"the task {task!r} takes no system message; it has: {', '.join(names)}", field="system")
    return kind, body


def _made(task: str, body: dict[str, Any]) -> Request[Any]:
    try:
        return from_wire({"request": task, **body})  # type: ignore[return-value]
    except InvalidRequest as error:
        # The wire names the place of an error inside pydantic; a field's own message already says it better.
        raise InvalidRequest(error.message.rpartition("Value error, ")[2].removeprefix(": "), field=error.field) from None


def _fill(kind: type[Request[Any]], body: dict[str, Any], text: str | None, given: Given, literal: bool) -> None:
    """Media go to the fields of their type; the input goes to the first field that must be given and is not."""
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind) if f.name != "meta"]
    for part in given.media:
        wanted = KINDS[part["type"]]
        free = [name for name in names if name not in body and wanted in (hints[name], *get_args(hints[name]))]
        if not free:
            raise InvalidRequest(f"the task {kind.task!r} takes no {part['type']}; it has: {', '.join(names)}", field="media")
        body[free[0]] = [part] if get_origin(hints[free[0]]) in (tuple, list) else part
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in body]
    if not missing:
        return
    name, hint = missing[0], hints[missing[0]]
    if hint in KINDS.values():
        if not text:
            raise InvalidRequest(f"the task {kind.task!r} needs a file as {name}", field=name)
        body[name] = media_part(Path(text), hint)
    elif get_origin(hint) in (tuple, list):
        # One text a line, so that as many answers come out as lines went in.
        typed = read_input(text, literal=literal)
        body[name] = [typed] if typed == text else typed.splitlines()
    else:
        value = read_input(text, literal=literal)
        body[name] = value if hint is str else _json_or_text(value)


def read_input(text: str | None, *, may_be_empty: bool = False, literal: bool = False) -> str:
    """The input as typed, or from standard input when it is absent, or "-" and not `literal`."""
    if text is None or (text == "-" and not literal):
        if sys.stdin is None or (text is None and sys.stdin.isatty()):
            raise InvalidRequest("give the input after the task, or pipe it in", field="input")
        try:
            text = sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError:
            raise InvalidRequest("standard input is not UTF-8 text", field="input") from None
    if not may_be_empty and not text.strip():
        raise InvalidRequest("the input is empty", field="input")
    return text


def record_of(file: str) -> dict[str, Any]:
    """The record in a file, or on standard input for "-". ConfigError when it is none."""
    name = named(file)
    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        kept = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(f"{name} is not JSON: make a record with `gateway explain --record FILE`") from None
    if not isinstance(kept, dict) or "record" not in kept:
        raise ConfigError(f"{name} is no decision's record: make one with `gateway explain --record FILE`")
    for part in ("policy", "decision"):
        if not isinstance(kept.get(part), dict):
            raise ConfigError(f"{name}: the record is damaged: it has no {part}")
    return kept


def named(file: str) -> str:
    """A file that may be standard input, as messages name it."""
    return "standard input" if file == "-" else repr(file)


def media_part(path: Path, kind: type[Media]) -> dict[str, Any]:
    """A file as the wire form of an image, a sound or a document."""
    name = next(name for name, known in KINDS.items() if known is kind)
    media_type = mimetypes.guess_type(path.name)[0] or ""
    if not media_type or (kind is not File and media_type.partition("/")[0] != name):
        raise InvalidRequest(f"{str(path)!r}: its name must end like that of {NAMED[name]}", field=name)
    part = {"type": name, "media_type": media_type, "data": base64.urlsafe_b64encode(path.read_bytes()).decode()}
    return part | ({"name": path.name} if kind is File else {})


def pairs(texts: list[str] | tuple[()], option: str) -> dict[str, str]:
    """FIELD=VALUE texts as a dict; dashes in a field's name are underscores."""
    out = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"{option} takes FIELD=VALUE", field=option)
        out[name.strip().replace("-", "_")] = value
    return out


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _schema(path: Path) -> dict[str, Any]:
    try:
        schema = json.loads(path.read_bytes())
    except ValueError:
        schema = None
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{str(path)!r} is not a JSON object: a JSON Schema is one", field="response_format")
    return schema
