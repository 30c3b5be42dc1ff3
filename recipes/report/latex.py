"""Tables as LaTeX for papers: a tabular with the rules of booktabs, values as the page shows them."""

from __future__ import annotations

from recipes.report.markup import Table, shown

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "·": r"$\cdot$", "√": r"$\surd$", "–": "--",
}  # fmt: skip


def latex_of(table: Table) -> str:
    """A table as LaTeX; text to the left, numbers to the right."""
    places = "".join("l" if column.kind == "text" else "r" for column in table.columns)
    lines = [
        f"% {table.name}; needs \\usepackage{{booktabs}}",
        f"\\begin{{tabular}}{{{places}}}",
        "\\toprule",
        " & ".join(escaped(column.title) for column in table.columns) + r" \\",
        "\\midrule",
    ]
    for row in table.rows:
        cells = [escaped(str(shown(cell, column.kind))) for cell, column in zip(row, table.columns)]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def escaped(text: str) -> str:
    """Text with LaTeX's own characters made harmless."""
    return "".join(_ESCAPED.get(letter, letter) for letter in text)
