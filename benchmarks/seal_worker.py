"""One contender of seal.py in a process of its own: it does one job and says, as JSON, what that took.

    python benchmarks/seal_worker.py NAME JOB PLAIN SEALED --threads N

It runs in the project's environment and, for the peers, in .venv-bench: nothing is imported before it is needed, and what is
needed is imported before the clock starts. Everybody has the same cores and is told the same number of threads.
"""

from __future__ import annotations

import argparse
import base64
import json
import mmap
import os
import random
import resource
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

SEGMENT = 1 << 20
OVERHEAD = 32
"""Of each segment of a sealed file, as in FLOE: 1 MiB with it."""
NONCE, TAG, RUN = 12, 16, 8
SLICED = "model.layers.0.self_attn.q_proj.weight"
"""16 MiB, in rows of 4 KiB."""
ROWS, SLICE_ROWS, ROW_BYTES, SLICES = 4096, 2, 4096, 50
Tensors = dict[str, Any]
Load = Callable[[], Tensors]
Slice = Callable[[int], bytes]
"""The bytes of two rows of `SLICED`, from this one on."""


def shards(folder: Path) -> list[Path]:
    """A model's safetensors files, or the peers' of the same names."""
    return sorted(folder.glob("*.safetensors"))


def key() -> bytes:
    """The 32 bytes that everybody seals with."""
    return base64.b64decode(os.environ["BENCH_KEY"])


def raw(tensor: Any) -> Any:
    """A tensor's bytes, as numbers."""
    import torch

    return tensor.detach().reshape(-1).view(torch.uint8)


class Plain:
    """safetensors as they are: mapped, or with a copy of each tensor."""

    def __init__(self, copied: bool) -> None:
        import safetensors.torch

        self._open: Any = safetensors.safe_open
        self._copied = copied

    def load(self, plain: Path, sealed: Path) -> Load:
        def run() -> Tensors:
            out = {}
            for path in shards(plain):
                with self._open(path, framework="pt") as file:
                    for name in file.offset_keys():
                        tensor = file.get_tensor(name)
                        out[name] = tensor.clone() if self._copied else tensor
            return out

        return run

    def slice(self, plain: Path, sealed: Path) -> Callable[[], Slice]:
        return lambda: rows_of(plain, self._open)


class Sealed:
    """Ours."""

    def __init__(self) -> None:
        import gateway_seal
        import torch

        import_module("cryptography.hazmat.primitives.kdf.hkdf")  # which it imports when it first opens something
        self._library: Any = gateway_seal
        self._dtypes = {"BF16": torch.bfloat16, "F16": torch.float16}

    def seal(self, plain: Path, sealed: Path) -> Callable[[], None]:
        return lambda: self._library.seal(plain, sealed, key="env:BENCH_KEY", threads=os.cpu_count())

    def load(self, plain: Path, sealed: Path) -> Load:
        import torch

        def run() -> Tensors:
            weights = self._library.open_sealed(sealed, key="env:BENCH_KEY")
            weights.load()
            return {
                name: torch.frombuffer(weights.read(name), dtype=self._dtypes[info.dtype]).reshape(info.shape)
                for name, info in weights.tensors.items()
            }

        return run

    def slice(self, plain: Path, sealed: Path) -> Callable[[], Slice]:
        def opened() -> Slice:
            weights = self._library.open_sealed(sealed, key="env:BENCH_KEY")
            return lambda row: bytes(weights.part(SLICED, row * ROW_BYTES, (row + SLICE_ROWS) * ROW_BYTES))

        return opened


class CryptoTensors:
    """cryptotensors: AES-256-GCM in chunks of 2 MiB, and a signed header, as they come."""

    def __init__(self) -> None:
        enc = {"kty": "oct", "alg": "aes256gcm", "kid": "enc", "k": os.environ["BENCH_KEY"]}
        pair = {"d": os.environ["BENCH_SIGN"], "x": os.environ["BENCH_VERIFY"]}
        sign = {"kty": "okp", "alg": "ed25519", "kid": "sign", **pair}
        self._config = {"enc_key": enc, "sign_key": sign}
        self._library: Any = import_module("cryptotensors")
        self._torch: Any = import_module("cryptotensors.torch")
        self._library.register_direct_key_provider(keys=[enc, sign])

    def seal(self, plain: Path, sealed: Path) -> Callable[[], None]:
        models = in_memory(plain)
        sealed.mkdir()

        def run() -> None:
            for name, tensors in models.items():
                self._torch.save_file(tensors, sealed / name, config=self._config)

        return run

    def load(self, plain: Path, sealed: Path) -> Load:
        return lambda: {name: tensor for path in shards(sealed) for name, tensor in self._torch.load_file(path).items()}

    def slice(self, plain: Path, sealed: Path) -> Callable[[], Slice]:
        return lambda: rows_of(sealed, self._library.safe_open)


class Tensorizer:
    """tensorizer, with its encryption: XSalsa20-Poly1305. It has no slices."""

    def __init__(self) -> None:
        self._library: Any = import_module("tensorizer")
        self._open: list[Any] = []

    def seal(self, plain: Path, sealed: Path) -> Callable[[], None]:
        models = in_memory(plain)
        sealed.mkdir()

        def run() -> None:
            for name, tensors in models.items():
                encryption = self._library.EncryptionParams(key=key())
                serializer = self._library.TensorSerializer(
                    str(sealed / name), encryption=encryption, limit_cpu_concurrency=os.cpu_count()
                )
                serializer.write_state_dict(tensors)
                serializer.close()

        return run

    def load(self, plain: Path, sealed: Path) -> Load:
        def run() -> Tensors:
            out: Tensors = {}
            for path in shards(sealed):
                encryption = self._library.DecryptionParams.from_key(key())
                file = self._library.TensorDeserializer(
                    str(path), device="cpu", encryption=encryption, num_readers=os.cpu_count()
                )
                self._open.append(file)
                out.update(file)
            return out

        return run


class Bare:
    """AES-256-GCM and nothing else, into freshly mapped memory: of ciphertext that lies in memory, or that is read."""

    def __init__(self, reads: bool) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._aead: Any = AESGCM(key())
        self._reads = reads

    def seal(self, plain: Path, sealed: Path) -> Callable[[], None]:
        sealed.mkdir()

        def run() -> None:
            for path in shards(plain):
                with path.open("rb") as source, (sealed / path.name).open("wb") as target:
                    for at, piece in enumerate(iter(lambda: source.read(SEGMENT - OVERHEAD), b"")):
                        target.write(self._aead.encrypt(at.to_bytes(NONCE, "big"), piece, None))

        return run

    def load(self, plain: Path, sealed: Path) -> Load:
        import torch

        paths = shards(sealed)
        held = {path: mapped(path.stat().st_size) for path in paths if not self._reads}
        for path, memory in held.items():
            with path.open("rb") as file:
                file.readinto(memory)

        def one(path: Path, pool: ThreadPoolExecutor) -> Any:
            size, step, room = path.stat().st_size, SEGMENT - OVERHEAD + TAG, SEGMENT - OVERHEAD
            count = -(-size // step)
            arena = mapped(size - count * TAG)
            view = memoryview(arena)
            handle = os.open(path, os.O_RDONLY)

            def run(first: int) -> None:
                scratch = bytearray(step)
                for at in range(first, min(first + RUN, count)):
                    length = min(step, size - at * step)
                    if self._reads:
                        data = memoryview(scratch)[:length]
                        assert os.preadv(handle, [data], at * step) == length
                    else:
                        data = memoryview(held[path])[at * step : at * step + length]
                    into = view[at * room : at * room + length - TAG]
                    self._aead.decrypt_into(at.to_bytes(NONCE, "big"), data, None, into)

            list(pool.map(run, range(0, count, RUN)))
            os.close(handle)
            return torch.frombuffer(arena, dtype=torch.uint8)

        def all_of_them() -> Tensors:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return {path.name: one(path, pool) for path in paths}

        return all_of_them


def mapped(size: int) -> mmap.mmap:
    """Fresh memory in huge pages, where the system gives them: private, because Python's default, shared memory, has none."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def in_memory(plain: Path) -> dict[str, Tensors]:
    """The model as a trainer has it, by file: the peers' clock starts there, ours at the files."""
    from safetensors.torch import load_file

    return {path.name: {name: tensor.clone() for name, tensor in load_file(path).items()} for path in shards(plain)}


def rows_of(folder: Path, safe_open: Any) -> Slice:
    """Slices the way of safetensors."""
    files = [safe_open(path, framework="pt") for path in shards(folder)]
    file = next(file for file in files if SLICED in file.keys())  # noqa: SIM118 - it is no mapping
    return lambda row: raw(file.get_slice(SLICED)[row : row + SLICE_ROWS]).numpy().tobytes()


CONTENDERS: Mapping[str, Callable[[], Any]] = {
    "gateway": Sealed,
    "plain, copied": lambda: Plain(copied=True),
    "plain, mapped": lambda: Plain(copied=False),
    "cryptotensors": CryptoTensors,
    "tensorizer": Tensorizer,
    "AES-GCM alone": lambda: Bare(reads=False),
    "AES-GCM, files read": lambda: Bare(reads=True),
}


class Clock:
    """Wall time, and the CPU's, user and system, children included."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), cpu_seconds()

    def read(self) -> dict[str, float]:
        """Seconds since then."""
        return {"wall": time.perf_counter() - self._wall, "cpu": cpu_seconds() - self._cpu}


def cpu_seconds() -> float:
    """What this process has used, and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def memory_bytes(field: str) -> int:
    """A line of this process's status: VmRSS, VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def files_of(folder: Path) -> Iterator[Path]:
    """All there is."""
    return (path for path in folder.rglob("*") if path.is_file())


def size_of(folder: Path) -> int:
    """What its files take."""
    return sum(path.stat().st_size for path in files_of(folder))


def warm(*folders: Path) -> None:
    """Have the files in the page cache."""
    scratch = bytearray(1 << 20)
    for path in (path for folder in folders for path in files_of(folder)):
        with path.open("rb", buffering=0) as file:
            while file.readinto(scratch):
                pass


def host_gives(size: int) -> None:
    """Take memory and free it: a virtual machine's host may have taken away what was free, and the next to ask would pay."""
    memory = mapped(size)
    for at in range(0, size, mmap.PAGESIZE):
        memory[at] = 1
    memory.close()


def synced(folder: Path) -> None:
    """Have what was written on the disk."""
    for path in [*files_of(folder), folder]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def sealing(contender: Any, plain: Path, sealed: Path) -> dict[str, float]:
    """As it is, and with a sync of what it has written: a library that syncs by itself has nothing left to do."""
    run = contender.seal(plain, sealed)
    warm(plain)
    host_gives(2 * size_of(plain))
    clock = Clock()
    run()
    took = clock.read()
    synced(sealed)
    return took | {f"synced_{name}": value for name, value in clock.read().items()}


def loading(contender: Any, plain: Path, sealed: Path) -> dict[str, float]:
    """Until one byte of each page was seen, and the most memory beyond what the process had before."""
    import torch

    run = contender.load(plain, sealed)
    warm(plain, sealed)
    int(raw(torch.ones(8192)).sum())
    host_gives(size_of(plain) * 5 // 4)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory_bytes("VmRSS")
    clock = Clock()
    tensors = run()
    seen = sum(int(raw(tensor)[::4096].sum()) + int(raw(tensor)[-1]) for tensor in tensors.values())
    took = clock.read()
    peak, anonymous = memory_bytes("VmHWM") - before, memory_bytes("RssAnon")
    size = sum(raw(tensor).numel() for tensor in tensors.values())
    return took | {"beyond": peak - size, "anonymous": anonymous, "size": size, "check": seen}


def slicing(contender: Any, plain: Path, sealed: Path) -> dict[str, float]:
    """The first slice, and others."""
    opened = contender.slice(plain, sealed)
    warm(plain, sealed)
    chance = random.Random(6)
    clock = Clock()
    part = opened()
    opening, clock = clock.read()["wall"], Clock()
    got, fresh = part(ROWS // 2), clock.read()["wall"]
    check, each = zlib.crc32(got), []
    for _ in range(SLICES):
        row = chance.randrange(ROWS - SLICE_ROWS)
        clock = Clock()
        got = part(row)
        each.append(clock.read()["wall"])
        check = zlib.crc32(got, check)
    return {"opening": opening, "fresh": fresh, "opened": sorted(each)[SLICES // 2], "worst": max(each), "check": check}


def main() -> None:
    """Do the job and say what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=list(CONTENDERS))
    parser.add_argument("job", choices=["seal", "load", "slice"])
    parser.add_argument("plain", type=Path)
    parser.add_argument("sealed", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.threads])
    os.cpu_count = lambda: given.threads  # tensorizer has no setting for the threads that decrypt: it asks this
    contender = CONTENDERS[given.name]()
    print(json.dumps({"seal": sealing, "load": loading, "slice": slicing}[given.job](contender, given.plain, given.sealed)))


if __name__ == "__main__":
    main()
