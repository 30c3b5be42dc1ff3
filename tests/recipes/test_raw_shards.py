"""Where the layers of a shard lie."""

from recipes.curating.raw_shards import task_name


def test_task_names_of_copies_differ_by_path():
    paths = ["a/b.jsonl", "a_b.jsonl", "a b.jsonl", "x" * 200 + ".jsonl", "y" + "x" * 200 + ".jsonl"]
    assert len({task_name(path, "0" * 32) for path in paths}) == len(paths)


def test_task_name_is_of_path_and_content_alone():
    assert task_name("de/a.jsonl", "ab" * 16) == task_name("de/a.jsonl", "ab" * 16)
    assert task_name("de/a.jsonl", "ab" * 16) != task_name("de/a.jsonl", "cd" * 16)
    assert task_name("de/a.jsonl", "ab" * 16).startswith("de_a.jsonl-")
