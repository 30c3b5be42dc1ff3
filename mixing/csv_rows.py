"""Rows of a CSV that somebody else may have written, each with the line it stands on."""

from __future__ import annotations

import csv
from pathlib import Path


def read_rows(path: Path, error_class: type[ValueError]) -> tuple[list[str], list[tuple[int, dict[str, str | None]]]]:
    """Column names, and each row with the number of the line it ends on; UTF-8, with or without a byte order mark.

    Cells that a row lacks are None; empty lines are no rows.

    Raises:
        error_class: with the file, where it cannot be read, is not UTF-8 or is no CSV.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or ())
            return header, [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise error_class(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise error_class(f"{path}: not a CSV: {error}") from error
    except OSError as error:
        raise error_class(f"{path}: {(error.strerror or str(error)).lower()}") from error
