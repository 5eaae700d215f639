"""How well and how fast personal data is found, beside Presidio and scrubadub on the same texts. Prints figures.

    python benchmarks/scrub.py [--quality] [--speed] [--data DIR] [--seed N] [--samples N] [--peers .venv-bench/bin/python]

Quality: presidio-research's made texts; Faker's Chinese values in messages of Weibo; Faker's values of 20 locales in sentences
of court cases. A find counts by overlap with what is there, of the same type. Presidio is given twice: with all it tells, as
it comes, and with what it scores .4 or more. No peer has a trained model here (see peers/scrub_peer.py): for names, places and
organisations there is nobody to compare with. False alarms are finds in logs and in Python's own library that are no address or
name of a host and no user there. Speed: process time on one core, all taking turns, a round of each; given is the best round.

The texts are in --data or GATEWAY_DATA: see scrub_texts.py. Other seeds plant other values in other places.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import scrub_texts
from scrub_score import PRESIDIO, SCRUBADUB, Found, Score, alarms, our_type, resolved, score, synth_type
from scrub_texts import Sample

HERE = Path(__file__).parent
OURS, SURE = "gateway", "presidio, .4"
PEERS = {"presidio": PRESIDIO, "scrubadub": SCRUBADUB}
CHAT_CHARS = 500
PEER_BYTES = 60_000
"""How much of the texts a peer is timed with: it has a rate, and should not take long."""
Goal = tuple[str, float | None, str, float, str]
"""What is asked, what was found (None: not measured), "at most" or "at least", the limit, and its unit."""


class Peer:
    """A library in a process of its own."""

    def __init__(self, name: str, python: str) -> None:
        self._name = name
        command = [python, str(HERE / "peers/scrub_peer.py"), name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._line() != "ready":
            raise RuntimeError("it did not start")

    def ask(self, job: str, texts: Sequence[str]) -> Any:
        """What it finds, or how many seconds it takes."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"job": job, "texts": texts}) + "\n")
        self._process.stdin.flush()
        line = self._line()
        if not line:
            raise RuntimeError(f"{self._name} ended")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class Contenders:
    """Those that run. One that cannot is left out, and why is printed."""

    def __init__(self, names: Sequence[str], python: str) -> None:
        self.scanner = scanner() if OURS in names else None
        self.peers: dict[str, Peer] = {}
        for name in [name for name in PEERS if name in names]:
            try:
                self.peers[name] = Peer(name, python)
            except (OSError, RuntimeError) as error:
                print(f"{name}: left out, {error} (make bench makes {python})", flush=True)

    def find(self, texts: Sequence[str]) -> dict[str, list[list[Found]]]:
        """What each finds, by contender."""
        out: dict[str, list[list[Found]]] = {}
        if self.scanner is not None:
            out[OURS] = [[(span.start, span.end, our_type(span.type)) for span in self.scanner.find(text)] for text in texts]
        for name, peer in self.peers.items():
            hits = peer.ask("find", texts)
            out[name] = [resolved(each, PEERS[name], 0.0) for each in hits]
            if name == "presidio":
                out[SURE] = [resolved(each, PEERS[name], 0.4) for each in hits]
        return out


def scanner() -> Any:
    """Ours, or None: what it lacks is printed."""
    try:
        return import_module("gateway_scrub.scan").Scanner()
    except ImportError as error:
        print(f"{OURS}: left out, {error}")
        return None


def number(found: float | None, wide: int = 7) -> str:
    """A share, or a dash."""
    return f"{'-':>{wide}}" if found is None else f"{found:{wide}.3f}"


def show(title: str, samples: Sequence[Sample], scores: dict[str, Score]) -> None:
    """The tables of one set of texts."""
    some = next(iter(scores.values()))
    print(f"\n{title}: {len(samples)} texts\n{'':34}{'there':>6}" + "".join(f"{name:>24}" for name in scores))
    print(f"{'precision, recall, F2':40}" + f"{'P':>10}{'R':>7}{'F2':>7}" * len(scores))
    for type, there in sorted(some.asked.items()):
        cells = [f"   {number(at.precision(type))}{number(at.recall(type))}{number(at.f2(type))}" for at in scores.values()]
        print(f"{type:34}{there:6}" + "".join(cells))
    kinds = [key for key in sorted(some.kind_asked) if len([other for other in some.kind_asked if other[0] == key[0]]) > 1]
    if kinds:
        print("recall by kind")
    for type, kind in kinds:
        print(
            f"  {kind:32.32}{some.kind_asked[type, kind]:6}"
            + "".join(number(at.kind(type, kind), 24) for at in scores.values())
        )
    print("characters masked, by a find of any type")
    for what, told in (("patterns", "of patterns"), ("names", "of names, places, firms"), ("other", "of all else")):
        if some.chars[what]:
            print(f"  {told:32}{some.chars[what]:6}" + "".join(number(at.share(what), 24) for at in scores.values()))


def quality_goals(name: str, at: Score | None) -> list[Goal]:
    """What is asked of ours in one set of texts."""
    out: list[Goal] = []
    if name == "Chinese":
        for type, kinds, told in (
            ("CN_ID", ("resident ID",), "resident ID"), ("PHONE", ("mobile",), "mobile"),
            ("CARD", ("bank card",), "bank card"), ("EMAIL", ("e-mail",), "e-mail"),
        ):  # fmt: skip
            fit = [] if at is None else [key for key in at.kind_asked if key[0] == type and key[1].startswith(kinds)]
            asked = sum(at.kind_asked[key] for key in fit) if at else 0
            share = sum(at.kind_seen[key] for key in fit) / asked if at and asked else None
            out.append((f"{name}: {told}, recall", share, "at least", 0.99, ""))
        return out
    for type, recall, precision in (
        ("EMAIL", 0.98, 0.98), ("IP", 0.98, 0.98), ("IBAN", 0.98, 0.98), ("US_SSN", 0.98, 0.98), ("CARD", 0.98, 0.98),
        ("PHONE", 0.90, 0.85),
    ):  # fmt: skip
        out.append((f"{name}: {type}, recall", at.recall(type) if at else None, "at least", recall, ""))
        out.append((f"{name}: {type}, precision", at.precision(type) if at else None, "at least", precision, ""))
    return out


def quality(contenders: Contenders, data: Path, given: argparse.Namespace) -> list[Goal]:
    """All that is found, and what is not there but found."""
    out: list[Goal] = []
    sets: dict[str, Callable[[], list[Sample]]] = {
        "presidio-research": lambda: scrub_texts.synth(data, synth_type),
        "Chinese": lambda: scrub_texts.chinese(data, Random(given.seed), given.count),
        "European": lambda: scrub_texts.european(data, Random(given.seed), given.count),
    }
    for name, made in sets.items():
        try:
            samples = made()
        except ImportError as error:
            print(f"{name}: skipped, {error}")
            continue
        finds = contenders.find([sample.text for sample in samples])
        scores = {who: score(samples, found) for who, found in finds.items()}
        if scores:
            show(f"{name}, seed {given.seed}" if name != "presidio-research" else name, samples, scores)
        out += quality_goals(name, scores.get(OURS))
    wanted = {
        "logs": scrub_texts.logs(data),
        "Python's library": scrub_texts.library(Random(given.seed), given.library_mb * 1e6),
    }
    for name, texts in wanted.items():
        counts = {}
        print(f"\nfalse alarms in {name}: {sum(len(text.encode()) for text in texts) / 1e6:.2f} MB")
        for who, found in contenders.find(texts).items():
            false, rest, shown = alarms(texts, found)
            counts[who] = false.total()
            print(f"{who:20}{counts[who]:7}   " + ", ".join(f"{type} {many}" for type, many in false.most_common()))
            if rest:
                print(f"{'':20}{'':7}   not counted: " + ", ".join(f"{type} {many}" for type, many in rest.most_common()))
            for type, some in shown.items() if given.samples else ():
                for each in Random(given.seed).sample(some, min(given.samples, len(some))):
                    print(f"{'':30}{type:18}{each}")
        for theirs in ("presidio", SURE):
            share = counts[OURS] / counts[theirs] if counts.get(theirs) and OURS in counts else None
            out.append((f"{name}: false alarms / {theirs}", share, "at most", 0.1, ""))
    return out


def seconds(find: Callable[[str], Any], texts: Sequence[str]) -> float:
    """The process time that finding takes."""
    began = time.process_time()
    for text in texts:
        find(text)
    return time.process_time() - began


def some_of(texts: Sequence[str], size: int) -> list[str]:
    """The first of them, up to about so many bytes."""
    out: list[str] = []
    for text in texts:
        if size <= 0:
            break
        out.append(text)
        size -= len(text.encode())
    return out


def speed(contenders: Contenders, data: Path, given: argparse.Namespace) -> list[Goal]:
    """How fast each is."""
    english = [piece for case in scrub_texts.cases(data) for piece in scrub_texts.pieces(case["text"])]
    weibo = scrub_texts.pieces("\n".join(message.text for message in scrub_texts.messages(data)))
    chat = [piece[:CHAT_CHARS] for piece in english if len(piece) >= CHAT_CHARS]
    jobs = {"English": english, "Chinese": weibo, "chat": chat}
    finders = {OURS: contenders.scanner}
    best: dict[tuple[str, str], float] = {}
    for _ in range(given.rounds):
        for job, texts in jobs.items():
            for name, each in finders.items():
                if each is not None:
                    rate = seconds(each.find, texts) / sum(len(text.encode()) for text in texts)
                    best[job, name] = min(rate, best.get((job, name), rate))
            fewer = some_of(texts, PEER_BYTES)
            for name, peer in contenders.peers.items():
                rate = peer.ask("time", fewer) / sum(len(text.encode()) for text in fewer)
                best[job, name] = min(rate, best.get((job, name), rate))
    per_chat = statistics.mean(len(text.encode()) for text in chat) * 1e6
    print(f"\nspeed, process time, the best of {given.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"{'':22}{'English MB/s':>14}{'Chinese MB/s':>14}{f'{CHAT_CHARS} chars us':>14}")
    for name in [name for name in (*finders, *PEERS) if ("chat", name) in best]:
        rates = [f"{1 / best[job, name] / 1e6:14.3f}" for job in ("English", "Chinese")]
        print(f"{name:22}{''.join(rates)}{best['chat', name] * per_chat:14.1f}")

    def mb_s(job: str, name: str) -> float | None:
        return 1 / best[job, name] / 1e6 if (job, name) in best else None

    out: list[Goal] = [
        ("English", mb_s("English", OURS), "at least", 5.0, " MB/s"),
        ("Chinese", mb_s("Chinese", OURS), "at least", 8.0, " MB/s"),
        (f"a message of {CHAT_CHARS} characters", best["chat", OURS] * per_chat if ("chat", OURS) in best else None,
         "at most", 150.0, " us"),
    ]  # fmt: skip
    return [*out, ("a chunk of a stream restored", restored_us(contenders.scanner, given.rounds), "at most", 3.0, " us")]


def restored_us(scan: Any, rounds: int) -> float | None:
    """Microseconds a chunk of a stream takes to restore: 5,000 chunks of about four characters. None without ours."""
    try:
        made = import_module("gateway_scrub.conversation").Conversation
    except (ImportError, AttributeError) as error:
        print(f"restoring: left out, {error}")
        return None
    if scan is None:
        return None
    words = "Thank you for the note about the river and its bridge; it will be looked at by somebody during the week. " * 4
    text = "".join(f"{words} Write to ann{at}@example.com or call +44 20 7946 {at:04}. " for at in range(42))
    conversation = made()
    covered = conversation.cover(text, scan.find(text))
    random = Random(0)
    cuts = sorted(random.sample(range(1, len(covered)), 4999))
    chunks = [covered[a:b] for a, b in zip([0, *cuts], [*cuts, len(covered)], strict=True)]
    best = float("inf")
    for _ in range(rounds * 3):
        restorer = conversation.restorer()
        began = time.process_time()
        out = [restorer.feed(chunk) for chunk in chunks]
        out.append(restorer.flush())
        best = min(best, time.process_time() - began)
        assert "".join(out) == text, "the stream was not restored"
    return best / len(chunks) * 1e6


def reached(goal: Goal) -> str:
    """Whether a goal is."""
    _, found, how, limit, _ = goal
    if found is None:
        return "not measured"
    return "reached" if (found <= limit if how == "at most" else found >= limit) else "missed"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quality", action="store_true", help="both, where neither is asked for")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--data", default=os.environ.get("GATEWAY_DATA"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3000, help="how many texts get values planted")
    parser.add_argument("--library-mb", type=float, default=2.0, help="how much of Python's library is drawn")
    parser.add_argument("--samples", type=int, default=0, help="how many false alarms of each type are shown, masked")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default=str(HERE.parent / ".venv-bench/bin/python"))
    parser.add_argument("--only", nargs="*", choices=(OURS, *PEERS), default=[OURS, *PEERS])
    given = parser.parse_args()
    if not given.data or not (Path(given.data) / "pii").is_dir():
        print("skipped: no data (--data DIR or GATEWAY_DATA, a folder with pii in it)")
        return
    contenders = Contenders(given.only, given.peers)
    both = not (given.quality or given.speed)
    goals = quality(contenders, Path(given.data), given) if given.quality or both else []
    goals += speed(contenders, Path(given.data), given) if given.speed or both else []
    for peer in contenders.peers.values():
        peer.close()
    print("\ngoals")
    for goal in goals:
        text, found, how, limit, unit = goal
        figure = "-" if found is None else f"{found:.3g}{unit}"
        print(f"{text:48}{figure:>12}   {reached(goal):14}({how} {limit:g}{unit})")


if __name__ == "__main__":
    main()
