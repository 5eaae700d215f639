"""WeightStoreContract, KeyProviderContract, StateStoreContract: what holds weights, keys and counts must do."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import pytest

from gateway.clock import seeded
from gateway.errors import GatewayError, KeyNotMine, WeightsError
from gateway.keys import EnvKey, FileKey, Keys
from gateway.state import LEASE_TTL_S, Lease, Limit, Refusal, Unit
from gateway.testing.contract_rules import Broken, Contract, Pulse, on_a_loop
from gateway.testing.fakes import FakeClock

Tensors = Mapping[str, tuple[str, tuple[int, ...], bytes | memoryview]]

FIRST: Tensors = {
    "layers.0.weight": ("F32", (2, 3), bytes(range(24))),
    "layers.0.bias": ("BF16", (3,), bytes(range(100, 106))),
}
SECOND: Tensors = {
    "scale": ("I64", (), b"\x01\x02\x03\x04\x05\x06\x07\x08"),
    "bulk": ("U8", (300_000,), seeded(1).randbytes(300_000)),
    "none": ("F16", (0, 4), b""),
}
FILES = {"config.json": b'{"model_type": "tiny"}', "notes.txt": bytes(range(256))}


class WeightStoreContract(Contract):
    """Inherit, and define the fixtures `store` and `uri`, a fresh uri of its scheme where nothing is yet.

    `keys` may be defined too: the keys that the store is given ("env" and "file" otherwise).
    """

    fixtures = frozenset({"store", "uri", "keys"})

    @pytest.fixture
    def store(self) -> Any:
        """The store under test, defined by the author."""
        pytest.fail(f"{type(self).__name__} needs a fixture `store`", pytrace=False)

    @pytest.fixture
    def uri(self) -> str:
        """A fresh uri, defined by the author."""
        pytest.fail(f"{type(self).__name__} needs a fixture `uri`: a uri where nothing is yet", pytrace=False)

    @pytest.fixture
    def keys(self) -> Keys:
        """The caller's keys."""
        return Keys({"env": EnvKey(), "file": FileKey()})

    def test_what_is_written_is_read_back(self, store: Any, uri: str, keys: Keys) -> None:
        write(store, uri, keys)
        weights = store.open(uri, keys)
        why = "a model with one wrong byte, shape or dtype answers, and answers wrongly"
        for name, (dtype, shape, data) in {**FIRST, **SECOND}.items():
            if name not in weights.tensors:
                broken(f"the tensor {name!r} is missing after a round trip", "every tensor", why)
            info = weights.tensors[name]
            if (info.dtype, tuple(info.shape), info.bytes) != (dtype, shape, len(data)):
                broken(f"the tensor {name!r} came back as {info}", f"{dtype}, {shape}, {len(data)} bytes", why)
            if bytes(weights.read(name)) != bytes(data):
                broken(f"the tensor {name!r} came back with other bytes", "the bytes that were written", why)
        if set(weights.tensors) != {*FIRST, *SECOND}:
            broken(f"there are tensors that nobody wrote: {sorted(weights.tensors)}", "those written only", why)
        if set(weights.files) != set(FILES):
            broken(f"the files came back as {sorted(weights.files)}", str(sorted(FILES)), why)
        for name, data in FILES.items():
            if weights.file(name) != data:
                broken(f"the file {name!r} came back with other bytes", "the bytes that were written", why)
        weights.close()

    def test_nothing_is_there_before_commit(self, store: Any, uri: str, keys: Keys) -> None:
        writer = fill(store, uri, keys)
        why = "a crash half-way must not leave half a model that loads"
        refuses(lambda: store.open(uri, keys), "open of a model that was not committed yet", why)
        writer.abort()

    def test_abort_leaves_no_trace(self, store: Any, uri: str, keys: Keys) -> None:
        fill(store, uri, keys).abort()
        refuses(lambda: store.open(uri, keys), "open after abort", "what was given up must not be served")
        write(store, uri, keys)

    def test_an_error_while_writing_aborts(self, store: Any, uri: str, keys: Keys) -> None:
        with pytest.raises(ZeroDivisionError), store.create(uri, keys) as writer:
            writer.add_file("config.json", b"{}")
            raise ZeroDivisionError
        refuses(lambda: store.open(uri, keys), "open after a writer's `with` block had failed", "half a model must not load")

    def test_what_is_not_there_is_a_weights_error(self, store: Any, uri: str, keys: Keys) -> None:
        why = "callers tell bad weights from a defect by the class"
        refuses(lambda: store.open(uri, keys), "open of a uri where nothing is", why)
        write(store, uri, keys)
        weights = store.open(uri, keys)
        refuses(lambda: weights.read("no such tensor"), "read of an unknown tensor", why)
        refuses(lambda: weights.file("no-such-file"), "file of an unknown name", why)
        weights.close()

    def test_an_existing_model_is_not_overwritten(self, store: Any, uri: str, keys: Keys) -> None:
        write(store, uri, keys)
        refuses(lambda: write(store, uri, keys), "create over an existing model", "weights that are in use would change")
        weights = store.open(uri, keys)
        if bytes(weights.read("scale")) != bytes(SECOND["scale"][2]):
            broken("a refused create changed the model that was there", "the model as it was", "it may be in use")
        weights.close()

    def test_writing_into_a_view_does_not_touch_what_is_stored(self, store: Any, uri: str, keys: Keys) -> None:
        write(store, uri, keys)
        weights = store.open(uri, keys)
        view = weights.read("bulk")
        if view.readonly:
            broken("read gave a read-only view", "a writable view of private memory", "torch refuses read-only buffers")
        view[:4] = b"\0\0\0\0"
        weights.close()
        again = store.open(uri, keys)
        if bytes(again.read("bulk")) != bytes(SECOND["bulk"][2]):
            broken("writing into a view changed what is stored", "stored bytes that never change", "weights are shared")
        again.close()

    def test_many_threads_read_at_once(self, store: Any, uri: str, keys: Keys) -> None:
        write(store, uri, keys)
        weights = store.open(uri, keys)
        wanted = {**FIRST, **SECOND}
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda name: (name, bytes(weights.read(name))), list(wanted) * 8))
        if wrong := {name for name, data in got if data != bytes(wanted[name][2])}:
            broken(f"threads that read at once got wrong bytes of {sorted(wrong)}", "right bytes", "loaders read in parallel")
        weights.close()


class KeyProviderContract(Contract):
    """Inherit, and define the fixtures `provider`, `uri` and `other_uri`: two references of its scheme with different keys."""

    fixtures = frozenset({"provider", "uri", "other_uri"})

    @pytest.fixture
    def provider(self) -> Any:
        """The provider under test, defined by the author."""
        pytest.fail(f"{type(self).__name__} needs a fixture `provider`", pytrace=False)

    @pytest.fixture
    def uri(self) -> str:
        """A reference to a key that the provider holds."""
        pytest.fail(f"{type(self).__name__} needs a fixture `uri`", pytrace=False)

    @pytest.fixture
    def other_uri(self) -> str:
        """A reference to another key that the provider holds."""
        pytest.fail(f"{type(self).__name__} needs a fixture `other_uri`, with another key", pytrace=False)

    def test_a_wrapped_key_comes_back(self, provider: Any, uri: str, other_uri: str) -> None:
        for key in (KEY, bytes(32), KEY[:16]):
            if provider.unwrap(uri, provider.wrap(uri, key, CONTEXT), dict(reversed(CONTEXT.items()))) != key:
                broken("unwrap gave another key than wrap was given", "the same bytes", "what it sealed would be lost")

    def test_another_context_does_not_open_it(self, provider: Any, uri: str, other_uri: str) -> None:
        wrapped = provider.wrap(uri, KEY, CONTEXT)
        why = "the context ties a key to one model: without it a key can be moved to another"
        for context in ({}, {**CONTEXT, "model": "other"}, {**CONTEXT, "more": ""}, {"modelti": "ny", "use": "weights"}):
            stays_shut(provider, uri, wrapped, context, "another context", why)

    def test_a_flipped_bit_does_not_open_it(self, provider: Any, uri: str, other_uri: str) -> None:
        wrapped = provider.wrap(uri, KEY, CONTEXT)
        why = "a wrap that was tampered with must never yield a key"
        for at in range(len(wrapped)):
            flipped = wrapped[:at] + bytes([wrapped[at] ^ 1 << at % 8]) + wrapped[at + 1 :]
            stays_shut(provider, uri, flipped, CONTEXT, f"a bit flipped in byte {at} of {len(wrapped)}", why)

    def test_a_cut_or_longer_wrap_does_not_open(self, provider: Any, uri: str, other_uri: str) -> None:
        wrapped = provider.wrap(uri, KEY, CONTEXT)
        for other in (b"", wrapped[:1], wrapped[: len(wrapped) // 2], wrapped[:-1], wrapped[1:], wrapped + b"\0"):
            stays_shut(provider, uri, other, CONTEXT, f"{len(other)} of {len(wrapped)} bytes", "files get cut short")

    def test_two_wraps_of_one_key_differ(self, provider: Any, uri: str, other_uri: str) -> None:
        if provider.wrap(uri, KEY, CONTEXT) == provider.wrap(uri, KEY, CONTEXT):
            broken("two wraps of one key are the same bytes", "fresh randomness in each", "equal wraps tell of equal keys")

    def test_the_wrap_does_not_show_the_key(self, provider: Any, uri: str, other_uri: str) -> None:
        wrapped = provider.wrap(uri, KEY, CONTEXT)
        if any(KEY[at : at + 8] in wrapped for at in range(len(KEY) - 7)):
            broken("the wrap holds bytes of the key in the clear", "ciphertext only", "the wrap lies on disk for all to read")

    def test_the_wrap_of_another_key_is_not_mine(self, provider: Any, uri: str, other_uri: str) -> None:
        wrapped = provider.wrap(other_uri, KEY, CONTEXT)
        try:
            provider.unwrap(uri, wrapped, CONTEXT)
        except KeyNotMine:
            return
        except Exception as error:
            broken(f"unwrap of another key's wrap raised {type(error).__name__}", "KeyNotMine", "the next key is tried then")
        broken("unwrap opened what another key had wrapped", "KeyNotMine", "then anybody's key opens anybody's model")


class StateStoreContract(Contract):
    """Inherit, and define the fixture `state`, an empty store that takes the time from the fixture `clock` (a FakeClock)."""

    fixtures = frozenset({"state", "clock"})

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The time, which the checks advance."""
        return FakeClock()

    @pytest.fixture
    def state(self, clock: FakeClock) -> Any:
        """The store under test, defined by the author."""
        pytest.fail(f"{type(self).__name__} needs a fixture `state(self, clock)`", pytrace=False)

    def _check(self, check: Callable[[], Awaitable[None]]) -> None:
        async def whole(pulse: Pulse) -> None:
            await check()

        on_a_loop(whole, patience_s=self.patience_s)

    def test_all_limits_are_taken_or_none(self, state: Any, clock: FakeClock) -> None:
        async def check() -> None:
            wide, narrow = limit("all", 10), limit("tenant:a", 3)
            await taken(state, 2, wide, narrow)
            refusal = await refused(state, 2, wide, narrow)
            if refusal.limit != narrow or refusal.used != 2:
                seen = f"the refusal named {refusal.limit.key!r} with {refusal.used:g} used"
                raise Broken(seen, "'tenant:a' with 2 used", "the caller is told which limit to raise")
            await taken(state, 8, wide)  # the refused reservation took nothing from the limit that had room
            await refused(state, 1, wide)

        self._check(check)

    def test_units_are_counted_apart(self, state: Any, clock: FakeClock) -> None:
        async def check() -> None:
            requests, tokens = limit("k", 5), limit("k", 100, unit="tokens")
            lease = await state.reserve({"requests": 1, "tokens": 90}, [requests, tokens])
            expect(lease, Lease, "a reservation within both limits")
            expect(await state.reserve({"requests": 1, "tokens": 20}, [requests, tokens]), Refusal, "20 tokens more than fit")
            expect(await state.reserve({"requests": 4, "tokens": 10}, [requests, tokens]), Lease, "what still fits")

        self._check(check)

    def test_limits_of_one_key_unit_and_window_share_a_count(self, state: Any, clock: FakeClock) -> None:
        async def check() -> None:
            await taken(state, 3, limit("k", 10))
            await refused(state, 2, limit("k", 4))  # the limit was lowered: what has been used still counts

        self._check(check)

    def test_a_refusal_says_when_there_is_room(self, state: Any, clock: FakeClock) -> None:
        async def check() -> None:
            clock.advance(20)
            await taken(state, 3, limit("k", 3))
            refusal = await refused(state, 1, limit("k", 3))
            if not 0 < refusal.frees_in_s <= 60:
                raise Broken(f"a full window of 60 s frees in {refusal.frees_in_s} s", "0 to 60", "callers wait so long")
            clock.advance(refusal.frees_in_s)
            await taken(state, 3, limit("k", 3))
            refusal = await refused(state, 4, limit("empty", 3))
            if refusal.frees_in_s != math.inf:
                raise Broken(f"more than the limit frees in {refusal.frees_in_s} s", "inf", "it never fits: waiting is vain")

        self._check(check)

    def test_windows_roll(self, state: Any, clock: FakeClock) -> None:
        async def check() -> None:
            for _ in range(3):
                lease = await taken(state, 3, limit("k", 3))
                await refused(state, 1, limit("k", 3))
                await state.settle(lease, {"requests": 3})
                await refused(state, 1, limit("k", 3))
                clock.advance(60)

        self._check(check)

    def test_settling_replaces_what_was_reserved(self, state: Any, clock: FakeClock) -> None:
        async def check() -> None:
            lease = await taken(state, 10, limit("k", 10))
            await state.settle(lease, {"requests": 4})
            await refused(state, 7, limit("k", 10))
            await taken(state, 6, limit("k", 10))

        self._check(check)

    def test_settling_twice_changes_nothing(self, state: Any, clock: FakeClock) -> None:
        async def check() -> None:
            lease = await taken(state, 6, limit("k", 10))
            for used in (6, 0, 100):
                await state.settle(lease, {"requests": used})
            await refused(state, 5, limit("k", 10))
            await taken(state, 4, limit("k", 10))

        self._check(check)

    def test_a_lease_that_nobody_settles_lapses(self, state: Any, clock: FakeClock) -> None:
        async def check() -> None:
            day = limit("k", 10, window_s=86_400)
            lease = await taken(state, 10, day)
            clock.advance(LEASE_TTL_S - 1)
            await refused(state, 1, day)
            clock.advance(2)
            await taken(state, 10, day)
            await state.settle(lease, {"requests": 10})  # late: it must not raise

        self._check(check)

    def test_reservations_at_once_never_exceed_a_limit(self, state: Any, clock: FakeClock) -> None:
        async def check() -> None:
            outcomes = await asyncio.gather(*(state.reserve({"requests": 1}, [limit("k", 10)]) for _ in range(50)))
            leases = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
            if len(leases) != 10:
                raise Broken(f"{len(leases)} of 50 reservations at once were granted", "10", "a budget is a promise")
            if len({lease.id for lease in leases}) != 10:
                raise Broken("two leases have one id", "an id each", "settling one would settle the other")

        self._check(check)


KEY = bytes(range(1, 33))
CONTEXT = {"model": "tiny", "use": "weights"}


def broken(seen: str, expected: str, why: str) -> NoReturn:
    """Fail with one clear message."""
    pytest.fail(str(Broken(seen, expected, why)), pytrace=False)


def fill(store: Any, uri: str, keys: Keys) -> Any:
    """A writer with a model in it that is not committed."""
    writer = store.create(uri, keys)
    for name, data in FILES.items():
        writer.add_file(name, data)
    writer.add_tensors("one.safetensors", FIRST)
    writer.add_tensors("two.safetensors", {name: (t[0], t[1], memoryview(t[2])) for name, t in SECOND.items()})
    return writer


def write(store: Any, uri: str, keys: Keys) -> None:
    """Write the model."""
    fill(store, uri, keys).commit()


def refuses(call: Callable[[], object], what: str, why: str) -> None:
    """Fail unless the call raises a WeightsError."""
    try:
        call()
    except WeightsError:
        return
    except Exception as error:
        broken(f"{what} raised a {type(error).__name__}: {error}", "a WeightsError", why)
    broken(f"{what} succeeded", "a WeightsError", why)


def stays_shut(provider: Any, uri: str, wrapped: bytes, context: Mapping[str, str], what: str, why: str) -> None:
    """Fail unless unwrap raises a GatewayError."""
    try:
        provider.unwrap(uri, wrapped, context)
    except GatewayError:
        return
    except Exception as error:
        broken(f"unwrap with {what} raised a bare {type(error).__name__}", "KeyNotMine or another GatewayError", why)
    broken(f"unwrap with {what} gave a key", "KeyNotMine or another GatewayError", why)


def limit(key: str, most: float, *, unit: Unit = "requests", window_s: float = 60.0) -> Limit:
    """A limit."""
    return Limit(key, unit, most, window_s)


def expect(outcome: Any, kind: type, what: str) -> None:
    """Broken when a reservation went the other way."""
    if not isinstance(outcome, kind):
        why = "too much granted overspends a budget, too little starves its owner"
        raise Broken(f"{what} gave a {type(outcome).__name__}", f"a {kind.__name__}", why)


async def taken(state: Any, amount: float, *limits: Limit) -> Any:
    """The lease of an amount that fits."""
    lease = await state.reserve({"requests": amount}, list(limits))
    expect(lease, Lease, f"a reservation of {amount:g} that fits")
    return lease


async def refused(state: Any, amount: float, *limits: Limit) -> Any:
    """The refusal of an amount that does not fit."""
    refusal = await state.reserve({"requests": amount}, list(limits))
    expect(refusal, Refusal, f"a reservation of {amount:g} that does not fit")
    return refusal
