"""Many questions at once: results in order, failures in place, and a journal from which a batch that was broken off goes on."""

import tempfile
from pathlib import Path

from gateway import Chat, ContentFiltered, Gateway, GatewayError
from gateway.testing import Echo


class Choosy(Echo):
    """A model that refuses one question, and counts what it is asked."""

    asked = 0

    async def run(self, request, /):
        self.asked += 1
        if "secret" in request.messages[-1].text:
            raise ContentFiltered("not this")
        return await super().run(request)


def questions(count):
    """A generator: each question is made when it can be asked."""
    for n in range(count):
        yield Chat.ask("Tell me a secret." if n == 3 else f"Question {n}.")


model = Choosy("model")
with tempfile.TemporaryDirectory() as folder, Gateway([model]) as gw:
    journal = Path(folder) / "answers.jsonl"
    for result in gw.map(questions(5), max_concurrency=2, journal=journal):
        print(repr(result) if isinstance(result, GatewayError) else result.text)
    print(f"asked {model.asked} times")

    gw.map(questions(8), max_rps=1000.0, journal=journal)  # three new ones, and the one that failed
    print(f"asked {model.asked} times")
