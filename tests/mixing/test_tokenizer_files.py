"""Which files make a tokenizer, and what a copy of it holds."""

import pytest

from mixing.tokenizer_files import copy_tokenizer

NAMES = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "additional_chat_templates/tools.jinja",
    "merges.txt",
    "vocab.json",
    "spiece.model",
]
OTHERS = ["config.json", "model.safetensors", "README.md", "notes/tokenizer.json"]


@pytest.fixture
def folder(tmp_path):
    for name in (*NAMES, *OTHERS):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() + b"\xff")
    return tmp_path / "source"


def copied(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("named", ["", "tokenizer.json"])
def test_copy_has_the_tokenizers_files_and_no_others(folder, tmp_path, named):
    copy_tokenizer(folder / named, tmp_path / "copy")
    assert copied(tmp_path / "copy") == {name: name.encode() + b"\xff" for name in NAMES}
    (folder / "merges.txt").write_text("changed")
    copy_tokenizer(folder, tmp_path / "copy")  # what is there stays: trainings share it
    assert copied(tmp_path / "copy")["merges.txt"] == b"merges.txt\xff"


def test_file_of_another_name_is_the_copys_tokenizer_and_a_foreign_model_stays(folder, tmp_path):
    (folder / "mine.json").write_text("mine")
    (folder / "tokenizer_config.json").unlink()
    copy_tokenizer(folder / "mine.json", tmp_path / "copy")
    found = copied(tmp_path / "copy")
    assert found["tokenizer.json"] == b"mine"
    assert "spiece.model" not in found
