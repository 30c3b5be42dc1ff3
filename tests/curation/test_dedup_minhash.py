"""Signatures against datasketch, bands against its optimiser and RedPajama's published ones."""

import datasketch
import numpy as np
import pyarrow as pa
import pytest
from datasketch.lsh import _optimal_param

from curation.dedup import minhash
from curation.dedup.minhash import Options, SignatureError, bands_for_threshold
from curation.dedup.shingle import shingle_hashes


@pytest.mark.parametrize("scheme", ["affine32", "affine64"])
@pytest.mark.parametrize("seed", [1, 42])
def test_minima_equal_datasketch_for_the_same_shingles(scheme, seed):
    draw = np.random.default_rng(5)
    texts = [" ".join(f"w{draw.integers(300)}" for _ in range(count)) for count in (5, 6, 40, 5000)]
    options = Options(scheme=scheme, seed=seed, bands=5, rows=7)
    found, _, _ = minhash.minima(pa.array(texts, pa.large_string()), options)
    for row, text in enumerate(texts):
        hashes = [int(value) >> (32 if scheme == "affine32" else 0) for value in shingle_hashes(text, "words", 5)]
        peer = datasketch.MinHash(35, seed=seed, scheme=scheme, hashfunc=int)
        peer.update_batch(hashes)
        assert peer.hashvalues.tolist() == found[row].tolist()


def test_minima_of_a_text_without_shingles_are_datasketchs_empty_ones():
    found, _, counts = minhash.minima(pa.array(["zu kurz"], pa.large_string()), Options(bands=2, rows=2))
    assert found[0].tolist() == datasketch.MinHash(4).hashvalues.tolist()
    assert counts.tolist() == [0]


@pytest.mark.parametrize(("threshold", "expected"), [(0.7, (14, 9)), (0.8, (9, 13)), (0.9, (5, 25)), (1.0, (1, 128))])
def test_bands_for_threshold_are_redpajamas(threshold, expected):
    assert bands_for_threshold(threshold, 128) == expected


@pytest.mark.parametrize(("threshold", "hashes"), [(0.5, 16), (0.65, 30), (0.8, 24), (0.95, 20), (0.0, 5)])
def test_bands_for_threshold_equal_datasketchs(threshold, hashes):
    assert bands_for_threshold(threshold, hashes) == _optimal_param(threshold, hashes, 0.5, 0.5)


def test_band_error_areas_equal_the_published_minima():
    """Minimum errors for 128 hashes at .7, .8, .9, as given with RedPajama-V2's bands."""
    errors = [minhash._error_area(*case) for case in ((0.7, 14, 9), (0.8, 9, 13), (0.9, 5, 25))]
    assert errors == pytest.approx([0.03625, 0.02930, 0.01844], abs=5e-6)


def test_share_of_common_bands_follows_the_formula():
    """Pairs with Jaccard near 0.8 share one of 14 x 8 bands in 1-(1-s^8)^14 of cases."""
    draw = np.random.default_rng(11)
    texts = []
    for number in range(400):
        words = [f"d{number}w{place}" for place in range(200)]
        texts.append(" ".join(words))
        changed = words.copy()
        for place in draw.choice(200, 4, replace=False):
            changed[place] = "anders"
        texts.append(" ".join(changed))
    batch = minhash.signatures(pa.array(texts, pa.large_string()), Options())
    bands = np.array([batch.column(f"band_{band:02d}").to_numpy() for band in range(14)])
    found = (bands[:, 0::2] == bands[:, 1::2]).any(axis=0)
    expected = []
    for one, other in zip(texts[0::2], texts[1::2]):
        a, b = (set(shingle_hashes(text, "words", 5).tolist()) for text in (one, other))
        similarity = len(a & b) / len(a | b)
        expected.append(1 - (1 - similarity**8) ** 14)
    deviation = np.sqrt(np.sum(np.array(expected) * (1 - np.array(expected))))
    assert abs(found.sum() - np.sum(expected)) < 4 * deviation


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"unit": "sentences"}, "sentences"),
        ({"scheme": "legacy"}, "affine32 or affine64"),
        ({"normalize": "upper"}, "upper"),
        ({"shingle": 0}, "1 to 1024"),
        ({"rows": 0}, "bands x rows"),
    ],
)
def test_options_that_make_no_sense_are_refused(values, said):
    with pytest.raises(SignatureError, match=said):
        Options(**values)


def test_signatures_of_fixed_texts_do_not_change():
    """Raise `minhash.VERSION` when this does."""
    texts = ["Der schnelle braune Fuchs springt über den faulen Hund.", "今天天气很好我们去公园"]
    batch = minhash.signatures(pa.array(texts, pa.large_string()), Options())
    assert [value.hex() for value in batch.column("exact").to_pylist()] == GOLDEN_EXACT
    assert batch.column("band_13").to_pylist() == GOLDEN_BAND


GOLDEN_EXACT = ["b44a4511055e6448b58c8203c87e6287", "ebd68897f63010b1915e3470daf4b756"]
GOLDEN_BAND = [1565344396947832501, 2428282469626251601]
