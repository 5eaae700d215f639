"""The commands of the `gateway` program. Nothing is loaded before a command needs it, so that --help is quick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gateway.bars import Bars
from gateway.card import Need
from gateway.cli_config import hidden, in_effect, to_toml
from gateway.cli_map import map_
from gateway.cli_options import Given, Task, given_of, meta_of, named, need_of, record_of, request_of, takes
from gateway.cli_setup import BUILT_IN, Setup, plugin_commands
from gateway.cli_show import (
    PIPE_CLOSED,
    Answer,
    check_json,
    check_row,
    differences,
    offer_row,
    show_decision,
    show_json,
    show_last_resort,
    show_note,
    show_reply,
    show_rest,
    show_table,
    silence,
    status_json,
    status_row,
    write_media,
    write_record,
)
from gateway.config import config_schema
from gateway.errors import ConfigError, GatewayError, InvalidRequest, NoEligibleModel
from gateway.parts import Restart
from gateway.plugins import GROUP, PluginInfo
from gateway.request import Meta, Request, Response
from gateway.sync import Gateway
from gateway.wire import to_wire

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Commands(TyperGroup):
    """The built-in commands, then those of plugins, which are looked for only when help or an unknown name asks."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            silence()  # before typer sees it, which has an exit code of its own for this
            raise typer.Exit(PIPE_CLOSED) from None

    def list_commands(self, ctx: Any) -> list[str]:
        try:
            added = sorted(plugin_commands(Setup.of(ctx).listed()))
        except GatewayError as error:
            added = []
            show_note(f"the commands of plugins are not shown: {error}")
        return [*BUILT_IN, *added]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in BUILT_IN:
            return super().get_command(ctx, cmd_name)
        plugins = Setup.of(ctx).listed()
        command = plugin_commands(plugins).get(cmd_name)
        if command is not None:
            single = _app()
            single.command(name=command.name, help=command.help or None)(command.function())
            return typer.main.get_command(single)
        broken = [str(info.error) for info in plugins.infos if info.error is not None]
        names = ", ".join([*BUILT_IN, *sorted(plugin_commands(plugins))])
        raise InvalidRequest("; ".join([f"unknown command {cmd_name!r}; there are: {names}", *broken]), field="command")


def _app(**options: Any) -> typer.Typer:
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=settings, **options)


def program() -> Any:
    """The whole program as a command that can be run."""
    app = _app(cls=Commands, no_args_is_help=True)
    app.callback()(_top)
    commands: tuple[Callable[..., None], ...] = (models, explain, run, map_, replay, plugins, check, config)
    for name, command in zip(BUILT_IN, commands, strict=True):
        app.command(name)(command)
    return typer.main.get_command(app)


def _version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"gateway {version('gateway-sdk')}")
        except PackageNotFoundError:
            print("gateway, run from its source without being installed")
        raise typer.Exit


def _top(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", is_eager=True, metavar="PATH",
                     help="The gateway.toml to use. Default: $GATEWAY_CONFIG, ./gateway.toml, or all that is installed."),
    ] = None,
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version.")] = False,
) -> None:  # fmt: skip
    """Any model, local or hosted, behind one interface, picked by a policy that says why."""


def models(
    ctx: typer.Context,
    as_json: AsJson = False,
    remote: Annotated[
        str | None,
        typer.Option("--remote", metavar="NAME", help="List instead all that the endpoint of a model or a provider offers."),
    ] = None,
) -> None:
    """List every model: its facts, and how it stands."""
    bars = Bars()
    with Setup.of(ctx).open(bars) as gateway:
        if remote is not None:
            cards = sorted(gateway.offered(remote), key=lambda card: card.name)
            bars.close()
            if as_json:
                return show_json([card.to_json() for card in cards])
            show_table(["name", "context", "$/M in/out"], [offer_row(card) for card in cards], right=["context", "$/M in/out"])
            return None
        statuses = gateway.models()
        bars.close()
    if as_json:
        return show_json([status_json(status) for status in statuses])
    if not statuses:
        show_note("no models: install a plugin such as gateway-local, or name models in gateway.toml")
        return None
    header = [
        "name",
        "plugin",
        "place",
        "tasks",
        "params",
        "bytes",
        "device",
        "context",
        "$/M in/out",
        "state",
        "queue",
        "error",
    ]
    show_table(header, [status_row(status) for status in statuses], right=["params", "bytes", "context", "$/M in/out"])


Input = Annotated[
    str | None,
    typer.Argument(metavar="INPUT", show_default=False, help="What to send; from standard input when absent or -."),
]
NoStream = Annotated[bool, typer.Option("--no-stream", help="Wait for the whole answer.")]
ShowReasoning = Annotated[bool, typer.Option("--show-reasoning", help="Show what the model thinks, on standard error.")]
ShowTrace = Annotated[bool, typer.Option("--trace", help="Say on standard error who answered, how fast, at what cost.")]
Record = Annotated[
    Path | None,
    typer.Option("--record", metavar="FILE", help="Write here all that the decision was made from: see `gateway replay`."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the reply's image or sound here.")]


@takes(need=need_of, given=given_of, meta=meta_of)
def explain(
    ctx: typer.Context,
    task: Task,
    text: Input = None,
    *,
    record: Record = None,
    as_json: AsJson = False,
    need: Need,
    given: Given,
    meta: Meta,
) -> None:
    """Show which model a request would get, and why the others would not. Asks no model."""
    bars = Bars()
    with Setup.of(ctx).open(bars) as gateway:
        decision = gateway.explain(request_of(task, text, given), need, meta=meta)
        bars.close()
    if as_json:
        show_json(decision.to_json())
    else:
        show_decision(decision)
    if record is not None:
        write_record(decision, record)


@takes(given=given_of, need=need_of, meta=meta_of)
def run(
    ctx: typer.Context,
    task: Task,
    text: Input = None,
    *,
    no_stream: NoStream = False,
    show_reasoning: ShowReasoning = False,
    trace: ShowTrace = False,
    out: Out = None,
    record: Record = None,
    as_json: AsJson = False,
    need: Need,
    given: Given,
    meta: Meta,
) -> None:
    """Ask the best model that may and can, and show its answer as it comes. embed gives a vector for each line of text."""
    bars, answer = Bars(), Answer(reasoning=show_reasoning)
    try:
        with Setup.of(ctx).open(bars) as gateway:
            request = request_of(task, text, given)
            if as_json or no_stream or out is not None or not _streams(request):
                reply = gateway.run(request, need, meta=meta)
                bars.close()
                if not as_json:
                    show_reply(reply, answer, task=task)
            else:
                reply = _streamed(gateway, request, need, meta, bars, answer)
            if as_json:
                show_json(to_wire(reply, task=task))
    except GatewayError as error:
        answer.end()
        if record is not None and isinstance(error, NoEligibleModel) and error.decision is not None:
            write_record(error.decision, record)
        raise
    finally:
        bars.close()
    if record is not None and reply.trace is not None and reply.trace.decision is not None:
        write_record(reply.trace.decision, record)
    if out is not None:
        for line in write_media(reply, out):
            show_note(line)
    elif not as_json:
        show_rest(reply)
    show_last_resort(reply)
    if trace:
        show_note(str(reply.trace))


def _streams(request: Request[Any]) -> bool:
    return type(request).response.deltas is not Response.deltas


def _streamed(gateway: Gateway, request: Request[Any], need: Need, meta: Meta, bars: Bars, answer: Answer) -> Response:
    with gateway.stream(request, need, meta=meta) as stream:
        for delta in stream:
            bars.close()
            if isinstance(delta, Restart):
                answer.end()
                show_note(f"[broken off; what came is void, and {delta.model} begins again]")
            elif delta.kind == "reasoning":
                answer.think(delta.data)
            else:
                answer.say(delta.text)
        answer.end()
        reply: Response = stream.response
    return reply


def replay(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", show_default=False, help="A record; - is standard input.")],
    as_json: AsJson = False,
) -> None:
    """Make a decision again from its record, with the policies that are installed here. Exits 1 when it comes out otherwise."""
    kept = record_of(file)
    again, recorded = Setup.of(ctx).again(kept, named(file)), kept["decision"]
    differ = differences(recorded, again.to_json())
    if as_json:
        show_json({"same": not differ, "differences": differ, "decision": again.to_json()})
    else:
        show_decision(again)
        print("\nreproduced byte for byte" if not differ else "\nthis is not what was recorded:")
        for line in differ:
            print(f"  {line}")
    if differ:
        raise typer.Exit(1)


def plugins(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List what is installed, what each plugin provides, and what is wrong with it."""
    infos = [_unloaded(point) for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)]
    setup, failure = Setup.of(ctx), None
    try:
        found = setup.listed()
        infos, failure = found.infos, setup.clash(found)
    except ConfigError as error:
        failure = error
    if as_json:
        show_json([_plugin_json(info) for info in infos])
    elif infos:
        header = ["name", "distribution", "version", "enabled", "hooks", "load ms", "error"]
        show_table(header, [_plugin_row(info) for info in infos], right=["load ms"])
    else:
        show_note("no plugins are installed")
    if failure is not None:
        raise failure


def _unloaded(point: Any) -> PluginInfo:
    dist = point.dist
    return PluginInfo(name=point.name, distribution=dist.name if dist else "", version=dist.version if dist else "")


def _plugin_row(info: PluginInfo) -> list[str]:
    hooks = ", ".join(hook.removeprefix("gateway_") for hook in info.hooks)
    if not hooks and info.loaded:
        hooks = "none: it provides nothing"
    load = f"{info.load_s * 1000:.0f}" if info.load_s else ""
    return [info.name, info.distribution, info.version, "yes" if info.enabled else "no", hooks, load, str(info.error or "")]


def _plugin_json(info: PluginInfo) -> dict[str, Any]:
    facts = {name: getattr(info, name) for name in ("name", "distribution", "version", "enabled", "load_s")}
    return {**facts, "hooks": list(info.hooks), "error": to_wire(info.error) if info.error else None}


def check(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Try every model before there is traffic: keys, weights, endpoints, routes. Exits 1 when something is wrong."""
    bars = Bars()
    with Setup.of(ctx).open(bars) as gateway:
        found = gateway.check()
        statuses = {status.name: status for status in gateway.models()}
        bars.close()
    rows = [(name, statuses[name].plugin if name in statuses else "", result) for name, result in found.items()]
    if as_json:
        show_json([check_json(*row) for row in rows])
    elif rows:
        show_table(["result", "model", "plugin", "what was found"], [check_row(*row) for row in rows])
    else:
        show_note("no models to check: install a plugin such as gateway-local, or name models in gateway.toml")
    if any(isinstance(result, GatewayError) for result in found.values()):
        raise typer.Exit(1)


def config(
    ctx: typer.Context,
    as_json: AsJson = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of gateway.toml instead.")] = False,
) -> None:
    """Show the configuration in effect, as TOML, with secrets hidden."""
    if schema:
        return show_json(config_schema())
    setup = Setup.of(ctx)
    table = hidden(asdict(setup.config))
    if as_json:
        return show_json({"path": str(setup.path) if setup.path else None, **table})
    print(f"# {setup.path}" if setup.path else "# no gateway.toml: these are the defaults")
    for name, meaning in (("plugins", "every one installed"), ("transforms", "every one installed, by name")):
        if table[name] is None:
            print(f"# {name}: {meaning}")
    print(to_toml(in_effect(table)), end="")
    return None
