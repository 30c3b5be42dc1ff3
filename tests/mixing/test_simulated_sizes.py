from __future__ import annotations

import pytest

from mixing.simulated_sizes import SizesError, read_sizes


def test_sizes_are_read_with_units_and_comments(tmp_path):
    path = tmp_path / "sizes.csv"
    path.write_text("# made up\ndomain,tokens,documents\nweb/head,1.5T,300M\nbooks,2000,3\n")
    first, second = read_sizes(path)
    assert (first.name, first.num_tokens, first.num_documents, first.size_bytes) == (
        "web/head",
        1_500_000_000_000,
        300_000_000,
        0,
    )
    assert (second.name, second.num_tokens) == ("books", 2000)


def test_sizes_as_a_spreadsheet_writes_them(tmp_path):
    path = tmp_path / "sizes.csv"
    path.write_text("# made up\n\ndomain,tokens,bytes\n\na,1B,4GB\n,,\nb,2B,8000\n", encoding="utf-8-sig")
    assert [(one.name, one.num_tokens, one.size_bytes) for one in read_sizes(path)] == [
        ("a", 10**9, 4 * 10**9),
        ("b", 2 * 10**9, 8000),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "expected the header"),
        ("domain,words\na,1\n", "expected the header"),
        ("domain,tokens\n", "no domain"),
        ("domain,tokens\na,1\na,2\n", "line 3: expected a new domain"),
        ("domain,tokens\na\n", "line 2"),
        ("domain,tokens\na,many\n", "line 2"),
        ("domain,tokens\na,-5\n", "line 2"),
        ("# one\n# two\ndomain,tokens\na,10\n\nb,xx\n", "line 6"),
    ],
)
def test_sizes_that_make_no_sense_name_the_line(tmp_path, content, told):
    path = tmp_path / "sizes.csv"
    path.write_text(content)
    with pytest.raises(SizesError, match=told):
        read_sizes(path)
