"""What `clean` makes of characters."""

import pyarrow as pa
import pytest

from curation.stages.text import CLEAN_VERSION, CleanOptions, cleaned

WEB = CleanOptions("web", repair=True, unicode="NFC", whitespace=True)


def clean(text, options=WEB):
    return cleaned(pa.array([text], pa.large_string()), options).to_pylist()[0]


@pytest.mark.parametrize("mark", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_clean_keeps_words_apart_that_a_control_character_parts(mark):
    text = f"Ende der Seite{mark}Neue Seite"
    assert clean(text).splitlines() == text.splitlines() == ["Ende der Seite", "Neue Seite"]


def test_clean_deletes_other_controls_and_keeps_tabs_without_whitespace():
    bare = CleanOptions("bare", repair=True, unicode=None, whitespace=False)
    assert clean("a\x00b\x1fc\x7f\td\r\ne\n\x0cf", bare) == "abc\td\r\ne\n\nf"


def test_clean_edits_characters_and_white_space():
    assert clean("fÃ¼r  e\u0301in\u00a0Wort \r\n\r\n\n\u3000Ende\x0c\n") == "für éin Wort\n\nEnde"


def test_version_of_clean_is_no_default_and_so_counts_in_keys():
    assert WEB.version != CLEAN_VERSION
