"""The command line's frame: help, misspelt verbs, exit codes, the generated page."""

import subprocess
import sys
from pathlib import Path

import pytest

from recipes.cli.document import PAGE, cli_page
from recipes.cli.main import VERBS


def gristmill(*arguments, cwd="/"):
    command = [sys.executable, "-P", "-m", "recipes.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_help_lists_every_verb_with_its_line():
    shown = gristmill("--help").stdout
    for verb, (_, line) in VERBS.items():
        assert verb in shown
        assert line.split()[0] in shown


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_of_a_verb_shows_an_example(verb):
    from recipes.cli.main import gristmill as group

    command = group.get_command(None, verb)
    assert f"gristmill {verb}" in command.help


def test_misspelt_verb_is_answered_with_the_nearest():
    ran = gristmill("tran", "x.yaml")
    assert ran.returncode == 2
    assert "did you mean 'train'" in ran.stderr


def test_missing_recipe_is_an_error_of_one_line():
    ran = gristmill("validate", "nowhere.yaml")
    assert ran.returncode == 2
    assert "nowhere.yaml" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_page_of_the_command_line_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == cli_page(), "run `make docs`"


def test_exit_codes_of_training_are_the_command_lines_and_documented():
    from recipes.cli import exit_codes
    from training.exits import Exit

    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    for code in Exit:
        if code is not Exit.ERROR:
            assert getattr(exit_codes, code.name) == code
        assert f"| {int(code)} |" in page
