"""Memory for text: private, in huge pages, and kept out of core dumps."""

from __future__ import annotations

import contextlib
import mmap

from gateway_seal.errors import SealError

HUGE = 2 << 20


def private(size: int) -> memoryview:
    """So many zeros, which begin at a huge page where they are as many as one, and stay out of core dumps."""
    try:
        made = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise SealError(f"there is no memory for {size} bytes of a sealed file: {error.strerror}") from error
    for advice in ("MADV_DONTDUMP", *(["MADV_HUGEPAGE"] if size >= HUGE else [])):
        with contextlib.suppress(AttributeError, OSError):  # not of this system: it is advice
            made.madvise(getattr(mmap, advice))
    return memoryview(made)[:size]
