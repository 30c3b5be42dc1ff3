"""Training stays within its memory: what the process allocates, measured from outside the arithmetic."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEASURED = """
import json, sys, threading, time
from pathlib import Path
import numpy as np
from curation.perplexity.kneser_ney import Options, train

class Names:
    def __init__(self, size):
        self.vocabulary = ["<unk>", "<s>", "</s>", *map(str, range(3, size))]
        self.finder = np.arange(size, dtype=np.uint32)

def sentences(number, seed):
    draw = np.random.default_rng(seed)
    yield np.array([1, *range(3, 20_000), 2], np.uint32)  # tokens are numbered as they first appear
    for _ in range(number):
        tokens = np.minimum(draw.zipf(1.3, (1000, 26)) + 2, 19_999).astype(np.uint32)
        tokens[:, 0], tokens[:, -1] = 1, 2
        yield tokens.reshape(-1)

def allocated():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) << 10

memory, folder = int(sys.argv[1]), Path(sys.argv[2])
train(sentences(1, 0), Names(20_000), Options(5, (), True, memory), folder / "warm")
before, peak, done = allocated(), [0], threading.Event()

def watch():
    while not done.is_set():
        peak[0] = max(peak[0], allocated())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
card = train(sentences(120, 1), Names(20_000), Options(5, (), True, memory), folder / "model")
done.set()
watcher.join()
print(json.dumps({"new": peak[0] - before, "ngrams": sum(card["ngrams"]), "sha256": card["sha256"]}))
"""


def trained(folder, memory):
    command = [sys.executable, "-c", MEASURED, str(memory), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=300)
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_train_allocates_within_its_memory_and_more_memory_gives_the_same_bytes(tmp_path):
    small, large = trained(tmp_path / "small", 48 << 20), trained(tmp_path / "large", 1 << 30)
    assert small["ngrams"] * 28 > 2 * (48 << 20)  # the arrays alone are more than twice the memory
    assert small["new"] < 48 << 20
    assert large["new"] > 96 << 20  # so the measure would see it
    assert small["sha256"] == large["sha256"]
