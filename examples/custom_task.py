"""A task of your own: a request class is a task. Routing, fallback, streaming and tracing come with it."""

from dataclasses import dataclass, field

from gateway import Gateway, ModelCard, ModelService, Request, Response


@dataclass(frozen=True, kw_only=True)
class CountResponse(Response):
    """How many times the letter occurs."""

    count: int


@dataclass(frozen=True, kw_only=True)
class Count(Request[CountResponse]):
    """How many times is a letter in a word?"""

    letter: str
    word: str = field(repr=False)


class Counter(ModelService):
    """Counts exactly, which no language model does."""

    card = ModelCard(name="counter", tasks=frozenset({Count}))

    async def run(self, request, /):
        return CountResponse(count=request.word.count(request.letter))


with Gateway([Counter()]) as gw:
    print(gw.run(Count(letter="r", word="strawberry")).count)
