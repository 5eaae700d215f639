"""Routes: needs with names, from gateway.toml. One that is asked for, or that a request fits, adds to what the caller needs.

    [route.hosted]
    place = ["hosted", "private"]

    [route.fast]
    inherits = "hosted"
    max_first_token_s = 0.8
    match = { task = "chat", max_input_tokens = 4000 }

A route never loosens what the caller says, nor the caller the route: `Need.merge` keeps the stricter of both.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.card import ModelCard, Need, matches
from gateway.config import MatchConfig, RouteConfig
from gateway.errors import ConfigError, InvalidRequest, told
from gateway.request import NOTHING, TEXT_ONLY
from gateway.routing import Shape

if TYPE_CHECKING:
    from gateway.decision import Veto
    from gateway.routing import Policy

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

CACHED = 1024
"""So many merged needs are kept, and so many kinds of requests with the routes that they may take."""
KEYS = tuple(f.name for f in fields(Need) if f.init and f.name not in ("route", "within"))
"""The keys of a route that are a need's, and are inherited."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """One route as it is used: `need` is all that it asks for, inherited or said. `match` is None: only asked for by name."""

    name: str
    need: Need
    match: MatchConfig | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """A route that a kind of request takes when its input is of `least` to `most` tokens."""

    name: str
    least: float
    most: float


class Routes:
    """All routes of a configuration. `names` lists them in the order of the file, which is the order of matching."""

    def __init__(self, config: Mapping[str, RouteConfig]) -> None:
        """ConfigError names the key ``route.NAME.KEY`` that is wrong: it inherits what is not there, or contradicts another."""
        said = _inherited(config)
        self._routes = {name: _route(name, one, said[name]) for name, one in config.items()}
        self._matching = any(route.match is not None for route in self._routes.values())
        self._taken: dict[tuple[Any, ...], tuple[Taken, ...]] = {}
        self._merged: dict[tuple[Need, str], Need] = {}
        self.names = tuple(self._routes)

    def resolve(
        self,
        need: Need,
        *,
        task: str,
        tenant: str = "",
        data_classes: frozenset[str] = NOTHING,
        features: frozenset[str] = NOTHING,
        modalities: frozenset[str] = TEXT_ONLY,
        input_tokens: int = 0,
        conversation: bool = False,
    ) -> tuple[str, Need]:
        """The name of the route that a request takes, "" for none, and the need of both; equal needs give the same object.

        InvalidRequest when the caller asks for a route that is not there. Caller and route may contradict each other: no
        model fits then, and the policies say which rule refuses each.
        """
        name = need.route
        if name:
            if name not in self._routes:
                there = ", ".join(self.names) or "none; [route.NAME] in gateway.toml makes one"
                raise InvalidRequest(f"need.route: there is no route {name!r}; there are: {there}", field="need.route")
        elif self._matching:
            kind = (task, tenant, data_classes, features, modalities, conversation)
            taken = self._taken.get(kind)
            if taken is None:
                taken = _keep(self._taken, kind, tuple(_taken(self._routes.values(), *kind)))
            for one in taken:
                if one.least <= input_tokens <= one.most:
                    name = one.name
                    break
        if not name:
            return "", need
        merged = self._merged.get((need, name))
        return name, merged or _keep(self._merged, (need, name), need.merge(self._routes[name].need))

    def why(self, name: str, *, asked: bool, task: str = "", tenant: str = "", data_classes: frozenset[str] = NOTHING) -> str:
        """One line that says why a request takes the route `name`, in the words of its `match`; "" for no route.

        Of several patterns only the one that fits is told: the others may name other tenants.
        """
        if not name:
            return ""
        route = self._routes[name]
        reason = (
            "asked for" if asked or route.match is None else f"matched: {_reasons(route.match, task, tenant, data_classes)}"
        )
        return f"route {name} ({reason})" + (f": {route.description}" if route.description else "")

    def nameless(self, names: Iterable[str]) -> dict[str, str]:
        """For each route whose `model` no service's name fits, or only one that it avoids: why, about ``route.NAME.model``."""
        known = tuple(sorted(names))
        out = {}
        for name, route in self._routes.items():
            need = route.need
            if need.model and not any(matches(one, need.model) and not matches(one, need.avoid) for one in known):
                out[name] = f"no model answers to {', '.join(need.model)}; there are: {', '.join(known) or 'none'}"
        return out

    def unservable(self, cards: Iterable[ModelCard], policies: Iterable[Policy]) -> dict[str, str]:
        """For each route that none of these models can ever serve: why, with each model's vetoes, in one line.

        Judged by the models' facts alone, for every task that the route's `match` allows, with the features, modalities
        and data class that it asks of a request.
        """
        known, judges = tuple(cards), tuple(policies)
        out = {}
        for name, route in self._routes.items():
            why = _unserved(route, known, judges)
            if why:
                out[name] = why
        return out


def _keep(cache: dict[K, V], key: K, value: V) -> V:
    """The value, which is kept; the oldest makes room for it."""
    if len(cache) >= CACHED:
        del cache[next(iter(cache))]
    cache[key] = value
    return value


def _taken(
    routes: Iterable[Route],
    task: str,
    tenant: str,
    data_classes: frozenset[str],
    features: frozenset[str],
    modalities: frozenset[str],
    conversation: bool,
) -> Iterator[Taken]:
    """The routes whose match fits such a request, if its input is of the right length."""
    for route in routes:
        match = route.match
        if (
            match is not None
            and (match.task is None or matches(task, match.task))
            and (match.tenant is None or matches(tenant, match.tenant))
            and (match.data_class is None or any(matches(one, match.data_class) for one in data_classes))
            and features.issuperset(match.features or ())
            and modalities.issuperset(match.modalities or ())
            and (match.conversation is None or match.conversation is conversation)
        ):
            most = match.max_input_tokens
            yield Taken(route.name, match.min_input_tokens or 0, math.inf if most is None else most)


def _inherited(config: Mapping[str, RouteConfig]) -> dict[str, dict[str, Any]]:
    """What each route says of a need, what it inherits included."""
    for name, one in config.items():
        for parent in one.inherits or ():
            if parent not in config:
                raise ConfigError(f"route.{name}.inherits: there is no route {parent!r}; there are: {', '.join(config)}")
    try:
        order = tuple(TopologicalSorter({name: one.inherits or () for name, one in config.items()}).static_order())
    except CycleError as error:
        circle = error.args[1][:0:-1]
        at = circle.index(next(name for name in config if name in circle))
        way = " -> ".join((*circle[at:], *circle[:at], circle[at]))
        raise ConfigError(f"route.{circle[at]}.inherits: it inherits itself: {way}") from None
    out: dict[str, dict[str, Any]] = {}
    for name in order:
        said: dict[str, Any] = {}
        for parent in config[name].inherits or ():
            said |= out[parent]
        out[name] = said | {key: value for key in KEYS if (value := getattr(config[name], key, None)) is not None}
    return out


def _route(name: str, config: RouteConfig, said: dict[str, Any]) -> Route:
    """A route, checked. ConfigError names its wrong key."""
    try:
        need = Need(**said, route=name)
    except InvalidRequest as error:
        key = error.field.removeprefix("need.")
        raise ConfigError(f"route.{name}.{key}: {error.message}") from None
    if need.min_params is not None and need.max_params is not None and need.max_params < need.min_params:
        key = "max_params" if config.max_params is not None else "min_params"
        raise ConfigError(f"route.{name}.{key}: max_params {need.max_params:g} is below min_params {need.min_params:g}")
    if need.model and all(_avoided(pattern, need.avoid) for pattern in need.model):
        key = "avoid" if config.avoid is not None else "model"
        raise ConfigError(f"route.{name}.{key}: avoid leaves none of the models that it names")
    match = config.match
    if match is not None and match.max_input_tokens is not None:
        least, most = max(match.min_input_tokens or 0, 0), match.max_input_tokens
        if most < least:
            raise ConfigError(f"route.{name}.match.max_input_tokens: {most} is below min_input_tokens, {least}")
    return Route(name=name, need=need, match=match, description=config.description or "")


def _literal(pattern: str) -> bool:
    return not any(mark in pattern for mark in "*?[")


def _avoided(pattern: str, avoid: Iterable[str]) -> bool:
    """True when it is plain that every name that fits the pattern is avoided."""
    return any(one in ("*", pattern) or (_literal(pattern) and matches(pattern, (one,))) for one in avoid)


def _reasons(match: MatchConfig, task: str, tenant: str, data_classes: Iterable[str]) -> str:
    said = [
        *(f"task {one}" for one in _fitted(match.task, (task,))),
        *([f"at least {match.min_input_tokens} tokens"] if match.min_input_tokens is not None else ()),
        *([f"at most {match.max_input_tokens} tokens"] if match.max_input_tokens is not None else ()),
        *(f"tenant {one}" for one in _fitted(match.tenant, (tenant,))),
        *(f"data class {one}" for one in _fitted(match.data_class, sorted(data_classes))),
        *([f"uses {', '.join(match.features)}"] if match.features else ()),
        *([f"input has {', '.join(match.modalities)}"] if match.modalities else ()),
        *(["in a conversation" if match.conversation else "in no conversation"] if match.conversation is not None else ()),
    ]
    return ", ".join(said) or "any request"


def _fitted(patterns: Iterable[str] | None, names: Iterable[str]) -> list[str]:
    """The first pattern that one of the names fits, if any does."""
    return [one for one in patterns or () if any(matches(name, (one,)) for name in names)][:1]


def _unserved(route: Route, cards: tuple[ModelCard, ...], policies: tuple[Policy, ...]) -> str:
    """Why none of the models can serve the route, "" when one can."""
    if not cards:
        return "there is no model"
    match = route.match or MatchConfig()
    tasks = [one for one in {task for card in cards for task in card.tasks} if not match.task or matches(one.task, match.task)]
    if not tasks:
        return f"no model does a task that fits {', '.join(match.task or ())}"
    classes = match.data_class or ()
    shapes = [
        Shape(
            task=task,
            need=route.need,
            features=frozenset(match.features or ()),
            modalities=frozenset(match.modalities or TEXT_ONLY),
            data_classes=held,
        )
        for task in sorted(tasks, key=lambda task: task.task)
        for held in ([frozenset({one}) for one in classes] if classes and all(map(_literal, classes)) else [NOTHING])
    ]
    refusals = []
    for card in cards:
        # Of many tasks the one that the model comes nearest to tells most.
        vetoes = min((_vetoes(shape, card, policies) for shape in shapes), key=len)
        if not vetoes:
            return ""
        refusals.append(f"{card.name}: {' and '.join(vetoes)}")
    return f"no model can serve it: {'; '.join(refusals)}"


def _vetoes(shape: Shape, card: ModelCard, policies: Iterable[Policy]) -> list[str]:
    out = []
    for policy in policies:
        veto: Veto | str | None
        try:
            veto = policy.admit(shape, card)
        except Exception as error:  # as when routing: a policy that raises refuses
            veto = f"policy {policy.name!r} raised {told(error)}"
        if isinstance(veto, str) or (veto is not None and not veto.waivable):
            out.append(str(veto))
    return out
