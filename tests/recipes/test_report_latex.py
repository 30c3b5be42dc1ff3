from recipes.report.latex import escaped, latex_of
from recipes.report.markup import Column, Table


def test_latex_table_has_the_pages_values_and_no_bare_characters():
    table = Table("t", (Column("a_b"), Column("share", "share")), (("x & y", 0.25), ("natural^0.5", None)))
    lines = latex_of(table).splitlines()
    assert lines[1] == r"\begin{tabular}{lr}"
    assert lines[3] == r"a\_b & share \\"
    assert lines[5] == r"x \& y & 25.0 \% \\"
    assert lines[6].startswith(r"natural\textasciicircum{}0.5 & ")


def test_escaped_text_keeps_a_backslash_as_one():
    assert escaped("a\\b%") == r"a\textbackslash{}b\%"
