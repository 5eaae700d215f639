"""What sealing a model costs: loading it, writing it and a slice of it, beside plain files and other libraries. Prints figures.

    python benchmarks/seal.py [--rounds N] [--threads N] [--shards N ...] [--peers .venv-bench/bin/python] [--only NAME ...]

1 GiB of random weights in shapes like a Llama's, in one file and then in four. Each figure is of a fresh process
(seal_worker.py) that has imported what it needs, with the files in the page cache; loading ends when one byte of each page was
seen. All take turns, a round of each; given are the medians, and of the ratios within each round the median and the least: the
machine may be shared. CPU is user and system time. "Beyond" is the most resident memory over what was there before and the
model itself. A peer's sealing starts with its tensors in memory, ours with files. Ours ends when all is on the disk; no peer
syncs, so theirs is given as it is and with a sync of its files after it. cryptotensors' first slice decrypts the whole tensor.
Needs Linux, 4 GiB of memory and, at --place, 5 GiB of disk; what it writes there goes again.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
OURS, COPIED, ALONE = "gateway", "plain, copied", "AES-GCM alone"
PEERS = ("cryptotensors", "tensorizer")
JOBS = {
    "seal": (OURS, *PEERS),
    "load": (OURS, COPIED, "plain, mapped", *PEERS, ALONE, "AES-GCM, files read"),
    "slice": (OURS, "plain, mapped", "cryptotensors"),
}
NAMES = tuple(dict.fromkeys(name for names in JOBS.values() for name in names))
HIDDEN, WIDE, KEYS, INNER, WORDS = 2048, 4096, 1024, 8192, 18432
MIB = 1 << 20
Seen = dict[tuple[str, str], list[dict[str, float]]]
"""What was measured, by job and contender, a round after the other."""
Goal = tuple[str, float | None, str, float, str]
"""What is asked, what was found (None: not measured), "at most" or "at least" or "under", the limit, and its unit."""


def save_model(folder: Path, layers: int, shards: int) -> int:
    """A Llama of random bfloat16 matrices and float16 norms, in so many files; its bytes. Seven layers are 1 GiB."""
    import torch
    from safetensors.torch import save_file

    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (WORDS, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for at in range(layers):
        inner = {
            "self_attn.q_proj": (WIDE, HIDDEN), "self_attn.k_proj": (KEYS, HIDDEN), "self_attn.v_proj": (KEYS, HIDDEN),
            "self_attn.o_proj": (HIDDEN, WIDE), "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN),
            "mlp.down_proj": (HIDDEN, INNER), "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
        }  # fmt: skip
        shapes |= {f"model.layers.{at}.{name}.weight": shape for name, shape in inner.items()}
    torch.manual_seed(0)
    tensors = {}
    for name, shape in shapes.items():
        dtype = torch.float16 if len(shape) == 1 else torch.bfloat16
        tensors[name] = torch.empty(shape, dtype=torch.int16).random_(-(1 << 15), 1 << 15).view(dtype)
    total = sum(tensor.nbytes for tensor in tensors.values())
    folder.mkdir()
    files: list[dict[str, torch.Tensor]] = [{} for _ in range(shards)]
    at = 0
    for name, tensor in tensors.items():
        files[at * shards // total][name] = tensor
        at += tensor.nbytes
    where: dict[str, str] = {}
    for number, some in enumerate(files, 1):
        file = "model.safetensors" if shards == 1 else f"model-{number:05}-of-{shards:05}.safetensors"
        save_file(some, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(some, file)
    if shards > 1:
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": layers, "num_attention_heads": WIDE // 128, "num_key_value_heads": KEYS // 128, "head_dim": 128,
        "vocab_size": WORDS, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return total


def keys(threads: int) -> dict[str, str]:
    """The environment of the workers: keys that live as long as this run, and how many threads."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    sign = Ed25519PrivateKey.generate()
    made = {
        "BENCH_KEY": os.urandom(32),
        "BENCH_SIGN": sign.private_bytes_raw(),
        "BENCH_VERIFY": sign.public_key().public_bytes_raw(),
    }
    told = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads))
    return os.environ | told | {name: base64.b64encode(value).decode() for name, value in made.items()}


class Contenders:
    """Those that run: one that fails is left out from then on, and why is printed."""

    def __init__(self, names: Sequence[str], peers: str, threads: int) -> None:
        self._peers = peers
        self._threads = threads
        self._environment = keys(threads)
        self.names = list(names)
        self._check()

    def measure(self, job: str, name: str, plain: Path, sealed: Path) -> dict[str, float] | None:
        """One job in a fresh process, None when it failed."""
        python = self._peers if name in PEERS else sys.executable
        command = [python, str(HERE / "seal_worker.py"), name, job, str(plain), str(sealed), "--threads", str(self._threads)]
        ran = subprocess.run(command, capture_output=True, text=True, env=self._environment)
        if ran.returncode:
            why = (ran.stderr.strip().splitlines() or [f"it ended with {ran.returncode}"])[-1]
            self.leave_out(name, f"its {job} failed: {why}")
            return None
        found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
        return found

    def leave_out(self, name: str, why: str) -> None:
        """Go on without it."""
        print(f"{name}: left out, {why}", flush=True)
        self.names.remove(name)

    def _check(self) -> None:
        if OURS in self.names:
            try:
                library = import_module("gateway_seal")
                lacks = [name for name in ("open_sealed", "seal") if not hasattr(library, name)]
                if lacks:
                    self.leave_out(OURS, f"gateway_seal lacks {' and '.join(lacks)}")
            except ImportError as error:
                self.leave_out(OURS, f"gateway_seal cannot be imported: {error}")
        for name in PEERS:
            if name in self.names and not Path(self._peers).exists():
                self.leave_out(name, f"there is no {self._peers} (make bench makes it)")


def run(contenders: Contenders, place: Path, *, layers: int, shards: int, rounds: int) -> tuple[Seen, int]:
    """All jobs of one layout, and how many bytes the model has."""
    plain = place / "plain"
    size = save_model(plain, layers, shards)
    seen: Seen = {}
    folders = {name: place / name.partition(",")[0].replace(" alone", "") for name in NAMES}
    bare = [name for name in (ALONE, "AES-GCM, files read") if name in contenders.names]
    if bare:
        contenders.measure("seal", bare[0], plain, folders[bare[0]])
    for job, names in JOBS.items():
        for _ in range(rounds):
            for name in [name for name in names if name in contenders.names]:
                if job == "seal":
                    shutil.rmtree(folders[name], ignore_errors=True)
                found = contenders.measure(job, name, plain, folders[name])
                if found is not None:
                    seen.setdefault((job, name), []).append(found)
    for job in ("load", "slice"):
        told = {name: each[0]["check"] for (at, name), each in seen.items() if at == job and not name.startswith("AES")}
        assert len(set(told.values())) <= 1, f"they do not {job} the same: {told}"
    return seen, size


def typical(seen: Seen, job: str, name: str, field: str) -> float | None:
    """The median of the rounds, None without any."""
    return statistics.median(each[field] for each in seen[job, name]) if (job, name) in seen else None


def ratios(seen: Seen, job: str, name: str, field: str, theirs: str | None = None) -> list[float]:
    """Ours by theirs within each round; empty when either is left out."""
    pairs = zip(seen.get((job, OURS), ()), seen.get((job, name), ()), strict=False)
    return [ours[field] / other[theirs or field] for ours, other in pairs]


def against(seen: Seen, job: str, name: str, field: str, theirs: str | None = None) -> float | None:
    """The median of those."""
    found = ratios(seen, job, name, field, theirs)
    return statistics.median(found) if found else None


def both(found: Sequence[float]) -> str:
    """The median and the least."""
    return f"{statistics.median(found):12.2f}{min(found):7.2f}" if found else f"{'-':>12}{'-':>7}"


def show(seen: Seen, size: int, title: str) -> None:
    """The tables of one layout."""
    wall = "ours / it, wall"
    print(f"\nloading {title}\n{'':22}{'wall s':>9}{'CPU s':>9}{'GiB/s':>9}{'beyond MiB':>12}{wall:>19}")
    for name in [name for name in JOBS["load"] if ("load", name) in seen]:
        took, cpu, beyond = (typical(seen, "load", name, field) or 0.0 for field in ("wall", "cpu", "beyond"))
        line = f"{name:22}{took:9.3f}{cpu:9.3f}{size / (1 << 30) / took:9.2f}{beyond / MIB:12.1f}"
        print(line + both([] if name == OURS else ratios(seen, "load", name, "wall")))
    print(f"\nsealing {title}\n{'':22}{'wall s':>9}{'CPU s':>9}{'synced s':>12}{'its CPU s':>12}{'  ' + wall + ', synced':>26}")
    for name in [name for name in JOBS["seal"] if ("seal", name) in seen]:
        fields = ("wall", "cpu", "synced_wall", "synced_cpu")
        took, cpu, synced, synced_cpu = (typical(seen, "seal", name, field) or 0.0 for field in fields)
        line = f"{name:22}{took:9.3f}{cpu:9.3f}{synced:12.3f}{synced_cpu:12.3f}       "
        print(line + both([] if name == OURS else ratios(seen, "seal", name, "synced_wall")))
    print(f"\nan 8 KiB slice of a 16 MiB tensor, ms\n{'':22}{'opening':>12}{'the first':>12}{'later':>12}{'worst':>9}")
    for name in [name for name in JOBS["slice"] if ("slice", name) in seen]:
        fields = ("opening", "fresh", "opened", "worst")
        opening, fresh, opened, worst = (1e3 * (typical(seen, "slice", name, field) or 0.0) for field in fields)
        print(f"{name:22}{opening:12.3f}{fresh:12.3f}{opened:12.3f}{worst:9.3f}")


def goals(seen: Seen) -> list[Goal]:
    """What is asked of ours, of the medians; of memory the most of the rounds."""
    out: list[Goal] = [("loading / plain, copied", against(seen, "load", COPIED, "wall"), "at most", 1.0, "")]
    out += [(f"loading / {name}", against(seen, "load", name, "wall"), "under", 1.0, "") for name in PEERS]
    most = max((each["beyond"] / MIB for each in seen.get(("load", OURS), ())), default=None)
    out.append(("memory beyond the model", most, "at most", 32.0, " MiB"))
    slower = against(seen, "load", ALONE, "wall")
    out.append(("rate / AES-GCM alone", None if slower is None else 1 / slower, "at least", 0.85, ""))
    read = against(seen, "load", "AES-GCM, files read", "wall")
    out.append(("rate / AES-GCM and reading the files", None if read is None else 1 / read, "at least", 0.85, ""))
    for name in PEERS:
        out.append((f"sealing / {name}, both synced", against(seen, "seal", name, "synced_wall"), "under", 1.0, ""))
        out.append((f"sealing / {name}, not synced", against(seen, "seal", name, "wall"), "under", 1.0, ""))
        out.append((f"sealing's CPU / {name}, not synced", against(seen, "seal", name, "cpu"), "under", 1.0, ""))
    for field, what in (("fresh", "the first slice"), ("opened", "a later slice")):
        found = typical(seen, "slice", OURS, field)
        out.append((what, None if found is None else found * 1e3, "under", 3.0, " ms"))
    return out


def reached(goal: Goal) -> str:
    """Whether a goal is."""
    _, found, how, limit, _ = goal
    if found is None:
        return "not measured"
    met = {"at most": found <= limit, "at least": found >= limit, "under": found < limit}[how]
    return "reached" if met else "missed"


def main() -> None:
    """Measure all of them and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--layers", type=int, default=7, help="7 make 1 GiB")
    parser.add_argument("--peers", default=str(HERE.parent / ".venv-bench/bin/python"))
    parser.add_argument("--only", nargs="*", choices=NAMES, default=list(NAMES))
    parser.add_argument("--place", default="/var/tmp", help="a folder on a disk")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder goes then too
    contenders = Contenders(given.only, given.peers, given.threads)
    for shards in given.shards:
        with tempfile.TemporaryDirectory(prefix="gateway-seal-bench-", dir=given.place) as place:
            load = os.getloadavg()[0]
            seen, size = run(contenders, Path(place), layers=given.layers, shards=shards, rounds=given.rounds)
        files = "1 file" if shards == 1 else f"{shards} files"
        title = f"{size / (1 << 30):.2f} GiB in {files}, {given.threads} threads, {given.rounds} rounds, load before {load:.1f}"
        show(seen, size, title)
        print(f"\ngoals, {files}")
        for goal in goals(seen):
            text, found, how, limit, unit = goal
            figure = "-" if found is None else f"{found:.2f}{unit}"
            print(f"{text:42}{figure:>12}   {reached(goal):14}({how} {limit:g}{unit})")


if __name__ == "__main__":
    main()
