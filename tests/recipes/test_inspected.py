"""The page of `inspect`: texts of any script are readable, and can do nothing to the page."""

from __future__ import annotations

import re

from recipes.report.inspected import readable, write_inspected

ONE = {
    "source": "web", "step": "gopher", "reason": "few_words", "kind": "dropped", "sql": "word_count < 50",
    "values": {"word_count": 7, "share": 0.25}, "content_id": "ab" * 16, "shard": "a<b>.jsonl", "row": 3,
}  # fmt: skip
DUPLICATE = {
    "source": "web", "step": "minhash", "reason": "duplicate", "content_id": "cd" * 16, "shard": "b", "row": 1,
    "duplicate_of": ["web", "a", 2], "index": None, "similarity": 0.91, "text": "eins", "other_text": "eins zwei",
}  # fmt: skip


def test_page_shows_rules_and_duplicates_with_escaped_text(tmp_path):
    texts = ["<script>alert(1)</script> & “x”", "שלום עולם", "学而时习之", None, "long " * 100]
    found = [{**ONE, "text": text} for text in texts]
    page = write_inspected(tmp_path / "inspect.html", "run", found, [DUPLICATE], 60).read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; “x”" in page
    assert "<script>alert" not in page
    assert "a&lt;b&gt;.jsonl row 3" in page
    assert page.count('<blockquote dir="auto">') == 6
    assert "שלום עולם" in page
    assert "学而时习之" in page
    assert "no text" in page
    assert "word_count = 7, share = 0.25" in page
    assert "drops where <code>word_count &lt; 50</code>" in page
    assert "duplicate of web a row 2, similarity 0.91" in page
    assert all(len(text) <= 61 for text in re.findall('<blockquote dir="auto">(long [^<]*)</', page))


def test_characters_that_turn_or_hide_text_are_shown_by_name():
    assert readable("a\u202eb\u202c\x00\x1b[31m\n\tc") == "a⟨U+202E⟩b⟨U+202C⟩⟨U+0000⟩⟨U+001B⟩[31m c"
    assert readable("e\u0301 שלום 👍🏽") == "e\u0301 שלום 👍🏽"
