"""PolicyContract and TransformContract: what judges models, and what rewrites requests and replies, must do."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from gateway.card import ModelCard, Need, Price
from gateway.clock import Random, seeded
from gateway.decision import Score, Veto
from gateway.live import Live
from gateway.parts import Delta, assemble
from gateway.request import Request, Response
from gateway.routing import Ask, Shape
from gateway.service import Resources
from gateway.tasks import Chat, ChatResponse, Embed, Generate, GenerateResponse, Message
from gateway.testing.contract_rules import Broken, Contract, Pulse, on_a_loop, within
from gateway.testing.contract_subject import same
from gateway.testing.fakes import resources as outside_resources
from gateway.transform import Findings, Rewrite
from gateway.vitals import Vitals

CUTTINGS = 40


class PolicyContract(Contract):
    """Inherit, and define the fixture `policy`. `cards` and `asks` may be defined too, to judge what it is about."""

    fixtures = frozenset({"policy", "cards", "asks"})

    @pytest.fixture
    def policy(self) -> Any:
        """The policy under test, defined by the author."""
        pytest.fail(f"{type(self).__name__} needs a fixture `policy`", pytrace=False)

    @pytest.fixture
    def cards(self) -> Sequence[ModelCard]:
        """Cards to judge beside the usual ones."""
        return ()

    @pytest.fixture
    def asks(self) -> Sequence[Ask]:
        """Requests to judge for beside the usual ones."""
        return ()

    def _judged(self, policy: Any, cards: Sequence[ModelCard], asks: Sequence[Ask]) -> Iterable[tuple[str, Any]]:
        for card in (*usual_cards(), *cards):
            for ask in (*usual_asks(), *asks):
                for live in usual_lives(card):
                    yield from judge(policy, ask, card, live)

    def test_it_has_a_name(self, policy: Any, cards: Any, asks: Any) -> None:
        if not isinstance(policy.name, str) or not policy.name:
            broken(f"the policy's name is {policy.name!r}", "a name", "explain prints it beside each refusal and score")

    def test_it_never_raises_and_judges_with_the_right_types(self, policy: Any, cards: Any, asks: Any) -> None:
        why = "a policy that fails refuses its model: nothing would be routed to it, and nobody would know why"
        for step, judgement in self._judged(policy, cards, asks):
            kind = Score if step == "score" else Veto
            if judgement is None:
                continue
            if not isinstance(judgement, kind):
                expected = f"a {kind.__name__} or None, at once (no coroutine)"
                broken(f"{step} gave a {type(judgement).__name__}", expected, why)
            if isinstance(judgement, Score) and not math.isfinite(judgement.usd):
                broken(f"score gave {judgement.usd} USD", "a finite number; refuse with a Veto in admit_live instead", why)
            if isinstance(judgement, Score) and not -math.inf < judgement.busy_usd <= 0.0:
                broken(f"score gave {judgement.busy_usd} USD for each request in flight", "a finite cost, at most 0", why)
            if isinstance(judgement, Veto) and not (judgement.rule and judgement.seen):
                broken(f"{step} gave {judgement!r}", "a rule, and what was seen", "users act on these words")

    def test_the_same_facts_get_the_same_judgement(self, policy: Any, cards: Any, asks: Any) -> None:
        first = list(self._judged(policy, cards, asks))
        second = list(self._judged(policy, cards, asks))
        for (step, one), (_, other) in zip(first, second, strict=True):
            if one != other:
                broken(f"{step} judged {one!r}, then {other!r} for the same facts", "one judgement", "decisions must replay")

    def test_judging_changes_nothing(self, policy: Any, cards: Any, asks: Any) -> None:
        for card in (*usual_cards(), *cards):
            for ask in (*usual_asks(), *asks):
                for live in usual_lives(card):
                    before = copy.deepcopy((ask, card)), facts_of(live)
                    list(judge(policy, ask, card, live))
                    if ((ask, card), facts_of(live)) != before:
                        broken("judging changed its ask, card or live", "facts in, judgement out", "others judge by them too")


class TransformContract(Contract):
    """Inherit, and define the fixture `transform`.

    May be defined too: `requests` that it has something to rewrite in; `card`, the model they go to; `reply`, a function
    from the outgoing request to a response that gives the transform something to restore; `resources`.
    """

    fixtures = frozenset({"transform", "requests", "card", "reply", "resources"})

    @pytest.fixture
    def transform(self) -> Any:
        """The transform under test, defined by the author."""
        pytest.fail(f"{type(self).__name__} needs a fixture `transform`", pytrace=False)

    @pytest.fixture
    def requests(self) -> Sequence[Request[Any]]:
        """Requests with a name, an address and a number in them."""
        text = "My name is Ada Lovelace; write to ada.lovelace@example.org or call +49 30 901820."
        turns = (Message.system("Be brief."), Message.user(text), Message.assistant("I shall."), Message.user("When?"))
        return [Chat.ask(text), Chat(messages=turns), Generate(prompt=text), Embed(texts=(text, "a dog"))]

    @pytest.fixture
    def card(self) -> ModelCard:
        """A hosted model."""
        return ModelCard(name="hosted", tasks=frozenset({Chat, Generate, Embed}), place="hosted")

    @pytest.fixture
    def reply(self) -> Callable[[Request[Any]], Response | None]:
        """Replies that hold what the outgoing request held, in the middle, twice, and at the end."""
        return usual_reply

    @pytest.fixture
    def resources(self) -> Resources:
        """Resources outside a gateway."""
        return outside_resources()

    def _begin(self, transform: Any, request: Request[Any], card: ModelCard, resources: Resources) -> tuple[Any, Any]:
        async def look(pulse: Pulse) -> Any:
            return await within(self.patience_s, transform.inspect(request, resources), "inspect")

        findings = on_a_loop(look, patience_s=self.patience_s)
        if findings is not None and not isinstance(findings, Findings):
            broken(f"inspect gave a {type(findings).__name__}", "Findings or None", "its data classes route the request")
        rewrite = transform.begin(request, findings, card)
        if rewrite is not None and not isinstance(rewrite, (Rewrite, Response)):
            broken(f"begin gave a {type(rewrite).__name__}", "a Rewrite, a Response or None", "the gateway calls it next")
        return findings, rewrite

    def test_the_request_is_never_changed(self, transform: Any, requests: Any, card: Any, resources: Any) -> None:
        for request in requests:
            before = copy.deepcopy(request)
            self._begin(transform, request, card, resources)
            if not same(request, before) or request.meta != before.meta:
                seen = f"inspect or begin changed its {request.task} request"
                broken(seen, "the request as it was, and another one in rewrite.request", "the next attempt starts from it")

    def test_what_goes_out_is_of_the_same_task(self, transform: Any, requests: Any, card: Any, resources: Any) -> None:
        for request in requests:
            _, rewrite = self._begin(transform, request, card, resources)
            if isinstance(rewrite, Rewrite) and type(rewrite.request) is not type(request):
                seen = f"a {type(request).__name__} went out as a {type(rewrite.request).__name__}"
                broken(seen, "the same class", "the caller was promised the response of its own request")
            if isinstance(rewrite, Response) and type(rewrite) is not request.response:
                seen = f"a {type(request).__name__} was answered with a {type(rewrite).__name__}"
                broken(seen, f"a {request.response.__name__}", "the request's class promises the response's class")

    def test_each_attempt_begins_the_same(self, transform: Any, requests: Any, card: Any, resources: Any) -> None:
        for request in requests:
            findings, first = self._begin(transform, request, card, resources)
            second = transform.begin(request, findings, card)
            if type(first) is not type(second) or not same(outgoing(first), outgoing(second)):
                seen = f"two attempts at one {request.task} request went out differently"
                broken(seen, "begin to depend on its arguments only", "a retry, a hedge and a replay must send the same")

    def test_a_stream_in_any_cutting_gives_the_whole(
        self, transform: Any, requests: Any, card: Any, reply: Any, resources: Any
    ) -> None:
        random = seeded(20)
        for request in requests:
            findings, rewrite = self._begin(transform, request, card, resources)
            response = reply(rewrite.request) if isinstance(rewrite, Rewrite) else None
            if response is None or not response.deltas():
                continue
            whole = assemble(transform.begin(request, findings, card).incoming(response).deltas())
            for number in range(CUTTINGS):
                cut = cutting(response.deltas(), random, 1 if number == 0 else None)
                fresh = transform.begin(request, findings, card)
                got = assemble([out for delta in cut for out in fresh.feed(delta)] + list(fresh.flush()))
                if not same(got, whole):
                    seen = f"a reply in {len(cut)} deltas came back as {got}, the whole one as {whole}"
                    why = "models cut where they like, also inside what must be restored"
                    broken(seen, "feed and flush to add up to what incoming gives", why)

    def test_two_attempts_share_nothing(self, transform: Any, requests: Any, card: Any, reply: Any, resources: Any) -> None:
        for request in requests:
            findings, rewrite = self._begin(transform, request, card, resources)
            response = reply(rewrite.request) if isinstance(rewrite, Rewrite) else None
            if response is None or not response.deltas():
                continue
            whole = assemble(transform.begin(request, findings, card).incoming(response).deltas())
            one, other = transform.begin(request, findings, card), transform.begin(request, findings, card)
            got: tuple[list[Delta], list[Delta]] = ([], [])
            for delta in cutting(response.deltas(), seeded(3), 1):
                for attempt, out in zip((one, other), got, strict=True):
                    out += attempt.feed(delta)
            for attempt, out in zip((one, other), got, strict=True):
                out += attempt.flush()
                if not same(assemble(out), whole):
                    seen = "two attempts, fed in turn, spoiled each other's reply"
                    broken(seen, "all state in the Rewrite", "hedged attempts run at once, and users at once too")

    def test_a_response_on_its_way_in_is_not_changed(
        self, transform: Any, requests: Any, card: Any, reply: Any, resources: Any
    ) -> None:
        for request in requests:
            _, rewrite = self._begin(transform, request, card, resources)
            response = reply(rewrite.request) if isinstance(rewrite, Rewrite) else None
            if response is None:
                continue
            before = copy.deepcopy(response)
            restored = rewrite.incoming(response)
            if not same(response, before):
                broken("incoming changed the response that it was given", "a new response", "others may hold it")
            if type(restored) is not type(response) or restored.usage != response.usage:
                broken("incoming gave another class or usage", "the same class and usage", "costs are settled by it")

    def test_notes_and_reprs_hold_no_content(self, transform: Any, requests: Any, card: Any, resources: Any) -> None:
        for request in requests:
            findings, rewrite = self._begin(transform, request, card, resources)
            shown = f"{getattr(rewrite, 'note', '')} {findings!r} {transform!r}"
            words = {word for word in re.findall(r"\S{5,}", text_of(request)) if not word.isalpha() or word.istitle()}
            if leaks := [word for word in sorted(words) if word in shown]:
                seen = f"a note or repr holds {len(leaks)} word(s) of the request"
                broken(seen, "counts and names of kinds only", "notes land in traces and logs")


def broken(seen: str, expected: str, why: str) -> NoReturn:
    """Fail with one clear message."""
    pytest.fail(str(Broken(seen, expected, why)), pytrace=False)


def usual_cards() -> list[ModelCard]:
    """A card that states nothing, and one that states everything."""
    tasks = frozenset({Chat})
    full = ModelCard(
        name="full", tasks=tasks | {Embed}, place="hosted", provider="p", model="m", params=8_000_000_000, bytes=16_000_000_000,
        dtype="BF16", context=8192, max_output=1024, features=frozenset({"tools"}), languages=frozenset({"en"}),
        price=Price(input=1, output=2), quality={"chat": 0.7}, first_token_s=0.5, per_token_s=0.01,
    )  # fmt: skip
    return [ModelCard(name="bare", tasks=tasks), replace(full, name="bare-hosted", price=None, quality=None), full]


def usual_asks() -> list[Ask]:
    """Requests with no wishes, with many, of a task that not all do, and far too long."""
    need = Need(
        place="local", max_params=1e9, max_bytes=1e9, context=4096, features=frozenset({"tools"}), min_quality=0.5,
        languages=frozenset({"de"}), max_latency_s=1.0, max_first_token_s=0.2, max_cost_usd=0.01, model="fu*", avoid="bare",
    )  # fmt: skip
    strict = Shape(task=Chat, need=need, features=frozenset({"tools"}), data_classes=frozenset({"pii"}))
    return [
        Ask(shape=Shape(task=Chat, need=Need())),
        Ask(shape=strict, input_bytes=4000, input_tokens=1000, output_tokens=100, conversation="c", deadline_s=2.0, now=9.0),
        Ask(shape=Shape(task=Embed, need=Need(), local_only="inspection failed"), input_bytes=40, input_tokens=10),
        Ask(shape=Shape(task=Chat, need=Need(max_cost_usd=0.0)), input_bytes=10**12, input_tokens=10**11, now=1e9),
    ]


def usual_lives(card: ModelCard) -> list[Live]:
    """A service never asked, and one in use."""
    new, used = Vitals(card), Vitals(card)
    used.in_flight, used.state = 7, "ready"
    used.succeeded("chat", 20.0, 3.0, 40, 1.0)
    used.failed(2.0)
    return [new.read("chat", 0.0), used.read("chat", 3.0)]


def judge(policy: Any, ask: Ask, card: ModelCard, live: Live) -> Iterable[tuple[str, Any]]:
    """The three steps' judgements. Fails when one raises."""
    steps = {"admit": (ask.shape, card), "admit_live": (ask, card, live), "score": (ask, card, live)}
    for step, facts in steps.items():
        try:
            judgement: Any = getattr(policy, step)(*facts)
        except Exception as error:
            seen = f"{step} raised {type(error).__name__} for the card {card.name!r}: {error}"
            broken(seen, "a judgement, also where facts are unknown (None)", "it refuses the model from then on")
        if hasattr(judgement, "close") and hasattr(judgement, "send"):
            judgement.close()
        yield step, judgement


def facts_of(live: Live) -> str:
    """What is known of a service, to compare."""

    def flat(value: Any) -> Any:
        slots = getattr(type(value), "__slots__", ())
        return {slot: flat(getattr(value, slot)) for slot in slots} if slots else value

    return repr(flat(live))


def outgoing(rewrite: Any) -> Any:
    """What a rewrite sends out; a response as it is."""
    return rewrite.request if isinstance(rewrite, Rewrite) else rewrite


def text_of(request: Request[Any]) -> str:
    """All the text of a built-in request."""
    match request:
        case Chat():
            return " ".join(message.text for message in request.messages)
        case Generate():
            return request.prompt
        case Embed():
            return " ".join(request.texts)
    return ""


def usual_reply(request: Request[Any]) -> Response | None:
    """A reply that says what was sent, twice, the second time at the very end."""
    said = text_of(request)
    match request:
        case Chat():
            return ChatResponse.of(f"You said: {said} That is: {said}")
        case Generate():
            return GenerateResponse(text=f" and so on: {said}")
    return None


def cutting(deltas: Sequence[Delta], random: Random, size: int | None) -> list[Delta]:
    """The same stream in other pieces: of `size` characters, or of random ones, some of them empty."""
    out = []
    for delta in deltas:
        head, rest = delta, delta.data
        while True:
            taken = random.choice((0, 1, 1, 2, 3, 5, 8, 40)) if size is None else size
            out.append(replace(head, data=rest[:taken]))
            rest = rest[taken:]
            if not rest:
                break
            head = Delta(part=delta.part, kind=delta.kind)
    return out
