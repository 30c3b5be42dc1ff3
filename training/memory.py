"""Memory that a process keeps between train steps.

glibc gives large tensors back to the kernel and faults them in again, page by page: a quarter of a train step of a
small model on a CPU. Processes that `training.launch` starts are told by their environment; here a process that already
runs, as a pool's worker does, changes its own allocator for a while.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt, and what it begins with.
TRIM_THRESHOLD, MMAP_MAX = -1, -4
FIRST_TRIM_THRESHOLD, FIRST_MMAP_MAX = 128 * 1024, 65_536
# For the environment of a process that is started: glibc asks for pages of 2 MiB where the kernel gives them on request
# (`/sys/kernel/mm/transparent_hugepage/enabled` says madvise), which takes 4 to 7 % off a train step of the 15M proxy.
HUGE_PAGES = {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")}


@contextmanager
def kept_memory() -> Iterator[bool]:
    """Keep freed memory in this process; afterwards give it back. Yields whether the allocator knows how."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):  # macOS, musl
        yield False
        return
    kept = bool(library.mallopt(MMAP_MAX, 0) and library.mallopt(TRIM_THRESHOLD, -1))
    try:
        yield kept
    finally:
        library.mallopt(MMAP_MAX, FIRST_MMAP_MAX)
        library.mallopt(TRIM_THRESHOLD, FIRST_TRIM_THRESHOLD)
        library.malloc_trim(0)
