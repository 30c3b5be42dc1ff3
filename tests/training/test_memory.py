import os
import subprocess
import sys

import pytest

# Page faults of asking twenty times for 64 MiB and writing to them, as the kernel counts them.
PROGRAM = """
import ctypes, resource
from contextlib import nullcontext
from training.memory import kept_memory
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def ask():
    before = faults()
    for _ in range(20):
        place = library.malloc(64 << 20)
        ctypes.memset(place, 1, 64 << 20)
        library.free(place)
    return faults() - before
plain = ask()
with kept_memory() as kept:
    inside = ask()
print(int(kept), plain, inside, ask())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts page faults as Linux does")
def test_kept_memory_is_faulted_in_once_and_given_back_afterwards():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC")}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment)
    kept, plain, inside, after = map(int, done.stdout.split())
    if not kept:
        pytest.skip("the allocator is not glibc's")
    assert inside < plain / 5
    assert after > inside * 3
