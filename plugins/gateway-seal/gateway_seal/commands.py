"""The subcommands of `gateway` that this plugin adds. Imported when one of them is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gateway import Bars, InvalidRequest, Keys, Secret, parse_config
from gateway_seal import sealing
from gateway_seal.options import Pins, SealedPath, SealOptions, refs
from gateway_seal.signing import sign

Dir = Annotated[Path, typer.Argument(metavar="DIR", help="A sealed directory.")]
Opens = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="REF", help="The key that opens it, such as env:NAME. Default: what \\[plugin.seal] says."),
]
Label = Annotated[str, typer.Option("--label", help="A name for the key, for people.")]
New = Annotated[str, typer.Option("--new", metavar="REF", help="The other key, such as env:NAME.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def seal(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A model's directory.")],
    to: Annotated[Path, typer.Option("--to", metavar="OUT", help="The directory to seal into.")],
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="REF", help="A key that is to open it, such as env:NAME; several may be given."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Make it the next generation of the model in OUT.")] = False,
) -> None:
    """Encrypt every file of a model."""
    with _bar(f"seal {source.name}") as progress:
        keys, known, pins = _opening(ctx, to, key)
        done = sealing.seal(source, to, key=known, keys=keys, replace=replace, pins=pins, progress=progress)
    print(f"sealed {_told(done)} into {to}; {source} is as it was: delete it once `gateway verify {to}` has passed")


def unseal(
    ctx: typer.Context,
    source: Dir,
    to: Annotated[Path, typer.Option("--to", metavar="OUT", help="The directory for the plain files.")],
    key: Opens = None,
) -> None:
    """Write a sealed model's plain files."""
    with _bar(f"unseal {source.name}") as progress:
        keys, known, pins = _opening(ctx, source, key)
        done = sealing.unseal(source, to, key=known, keys=keys, pins=pins, progress=progress)
    print(f"unsealed {_told(done)} into {to}: they are not encrypted there")


def verify(ctx: typer.Context, path: Dir, key: Opens = None) -> None:
    """Check every byte of a sealed model."""
    with _bar(f"verify {path.name}") as progress:
        keys, known, pins = _opening(ctx, path, key)
        done = sealing.verify(path, key=known, keys=keys, pins=pins, progress=progress)
    print(f"verified {_told(done)}: generation {done.generation} of model {done.model_id}")


def inspect(ctx: typer.Context, path: Dir, key: Opens = None, as_json: AsJson = False) -> None:
    """Show what a sealed model holds: with a key its files and tensors, too."""
    # Without --key nothing is unlocked, unless the configuration has a key for it: a passphrase costs a second.
    keys, known, _ = _opening(ctx, path, key, needed=False)
    found = sealing.inspect(path, key=known, keys=keys)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    verified = "" if found.files is not None else " (not verified: no key was given)"
    rows = [
        ("model_id", found.model_id),
        ("generation", f"{found.generation}{verified}"),
        ("manifest_sha384", found.manifest_sha384),
        ("keys", ", ".join(label or "(no label)" for label in found.labels)),
        ("on disk", _bytes(found.sealed_bytes)),
    ]
    for name, value in rows:
        print(f"{name:<16} {value}")
    if found.files is None or found.tensors is None:
        print("its files and tensors are encrypted: --key shows them")
        return
    print(f"\n{len(found.files)} files")
    for name, size in found.files.items():
        print(f"  {_bytes(size):>10}  {name}")
    print(f"\n{len(found.tensors)} tensors")
    for name, info in found.tensors.items():
        print(f"  {_bytes(info.bytes):>10}  {info.dtype:<5} {'x'.join(map(str, info.shape)) or 'scalar':<16} {name}")
    if found.orphans:
        print(f"\n{len(found.orphans)} files that a crash left; the next `gateway seal --replace` removes them")


def rotate(ctx: typer.Context, path: Dir, new: New, key: Opens = None, label: Label = "") -> None:
    """Let another key open a sealed model in the place of this one. The weights are not written again."""
    keys, known, _ = _opening(ctx, path, key)
    sealing.rotate(path, key=known, new=new, keys=keys, label=label)
    print(f"{new} opens {path} now, in the place of the key that did; who kept a copy can still open that")


def add_key(ctx: typer.Context, path: Dir, new: New, key: Opens = None, label: Label = "") -> None:
    """Let another key open a sealed model, too."""
    keys, known, _ = _opening(ctx, path, key)
    sealing.add_key(path, key=known, new=new, keys=keys, label=label)
    print(f"{new} opens {path}, too")


def remove_key(
    ctx: typer.Context,
    path: Dir,
    remove: Annotated[str | None, typer.Option("--remove", metavar="REF", help="The key to remove, such as env:NAME.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="The label of the key to remove, as `inspect` shows it.")] = None,
    key: Opens = None,
) -> None:
    """Remove a key of a sealed model; --key names one that stays."""
    keys, known, _ = _opening(ctx, path, key)
    sealing.remove_key(path, key=known, remove=remove, label=label, keys=keys)
    print("removed; what that key could read before it can still read from a copy: `gateway seal --replace` shuts it out")


def seal_sign(
    path: Dir,
    private_key: Annotated[Path, typer.Option("--private-key", metavar="PEM", help="An elliptic key that only you can read.")],
    signature: Annotated[
        Path | None, typer.Option("--signature", metavar="FILE", help="Where to write it. Default: beside the manifest.")
    ] = None,
    password: Annotated[bool, typer.Option("--password", help="Ask for the password of the private key.")] = False,
) -> None:
    """Sign a sealed model's manifest, as OpenSSF model signing does."""
    from getpass import getpass

    try:
        asked = Secret(getpass("password of the private key: ")) if password else None
    except EOFError:
        raise InvalidRequest("--password: no password was typed", field="--password") from None
    print(sign(path, private_key, signature=signature, password=asked))


def _opening(
    ctx: typer.Context, path: Path, given: list[str] | None, *, needed: bool = True
) -> tuple[Keys, tuple[str, ...], Pins | None]:
    """The key providers, the keys for a path as given or configured, and what is known of it."""
    options = parse_config(SealOptions, ctx.obj.config.plugin.get("seal", {}), "plugin.seal")
    known: SealedPath | None = options.known(path)
    configured = (refs(known.key) if known else ()) or refs(options.keys)
    found = tuple(given or ()) or configured
    if needed and not found:
        raise InvalidRequest("no key: give one with --key, such as --key env:NAME, or set keys in [plugin.seal]", field="--key")
    return ctx.obj.keys, found, known


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    bars = Bars()
    try:
        yield lambda done, total: bars(label, done, total)
    finally:
        bars.close()


def _told(done: sealing.Report) -> str:
    rate = f" ({done.bytes / done.seconds / 1e9:.2f} GB/s)" if done.bytes > 10**7 and done.seconds else ""
    return f"{done.files} files, {_bytes(done.bytes)}, in {done.seconds:.1f} s{rate}"


def _bytes(size: int) -> str:
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= least:
            return f"{size / least:.1f} {unit}"
    return f"{size} B"
