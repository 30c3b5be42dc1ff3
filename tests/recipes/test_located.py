"""Located YAML: every value knows its file and line, through extends and --set."""

import textwrap

import pytest

from recipes.schema.layered import load_located
from recipes.schema.located import NOTHING, Located, Node, Place, RecipeErrors, parse


@pytest.fixture
def write(tmp_path):
    def written(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return written


def load(path, *overrides):
    noticed: list[Located] = []
    tree = load_located(path, overrides, noticed)
    assert not noticed, noticed
    return tree


def at(tree: Node, *path) -> Node:
    for segment in path:
        child = tree.get(segment)
        assert child is not None, f"{segment} of {path}"
        tree = child
    return tree


def parsed(text):
    return parse(text, "x.yaml", []).plain()


def test_parse_knows_lines_of_keys_and_values():
    tree = parse("a: 1\nb:\n  - x\n  - c: [2,\n      3]\n", "r.yaml", [])
    assert at(tree, "a").place == Place("r.yaml", 1)
    assert at(tree, "b").key_place == Place("r.yaml", 2)
    assert at(tree, "b", 0).place.line == 3
    assert at(tree, "b", 1, "c", 1).place.line == 5


def test_parse_follows_yaml_1_2():
    text = "{n: no, y: yes, on: off, t: true, o: 010, h: 0x10, u: 1_000, e: 6e-4, f: .5, "
    text += "d: 2026-11-21, s: '1', z: ~, c: 1:30}"
    expected = {"n": "no", "y": "yes", "on": "off", "t": True, "o": 10, "h": 16, "u": 1000, "e": 6e-4, "f": 0.5}
    expected |= {"d": "2026-11-21", "s": "1", "z": None, "c": "1:30"}
    values = parsed(text)
    assert values == expected
    assert {key: type(value) for key, value in values.items() if key in "toheuf"} == {
        "t": bool, "o": int, "h": int, "e": float, "u": int, "f": float,
    }  # fmt: skip


def test_parse_keys_are_words_whatever_they_look_like():
    assert parsed("{no: 1, 3: 2, '*': 3, true: 4, de: 5}") == {"no": 1, "3": 2, "*": 3, "true": 4, "de": 5}


def test_parse_notices_keys_that_stand_twice_and_goes_on():
    noticed: list[Located] = []
    tree = parse("a: 1\nb: {c: 1,\n c: 2}\na: 3\n", "r.yaml", noticed)
    assert [str(error) for error in noticed] == [
        "r.yaml:3: b.c: stands twice, first in r.yaml:2",
        "r.yaml:4: a: stands twice, first in r.yaml:1",
    ]
    assert tree.plain() == {"a": 1, "b": {"c": 1}}


def test_parse_refuses_tags():
    noticed: list[Located] = []
    parse("a: !!python/object 3", "r.yaml", noticed)
    assert "YAML tags" in str(noticed[0])


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a:\n\tb: 1\n", 2, "a tab indents this line"),
        ("a:\n  b: 1\n c: 2\n", 3, "indent of this line fits none"),
        ("a: 1\nb: {c: 1\n", 2, "never closed"),
        ("a: b: c\n", 1, "quote text that holds"),
        ("a: {*: 1}\n", 1, 'such as "*"'),
        ("a: 'x\n", 1, "never closed"),
    ],
)
def test_parse_syntax_error_names_the_line_and_the_fix(text, line, what):
    with pytest.raises(RecipeErrors) as raised:
        parse(text, "r.yaml", [])
    (error,) = raised.value.errors
    assert error.place.line == line
    assert what in str(error)


def test_extends_merges_mappings_and_replaces_lists_and_values(write):
    write("base.yaml", "seed: 1\nsteps: [{rules: gopher}]\nexecution: {workers: 2, training: {nodes: 1, devices: 4}}\n")
    tree = load(
        write(
            "top.yaml", "extends: base.yaml\nsteps: [{clean: web}]\nexecution: {memory: 2 GiB, training: {nodes: 8}}\n"
        )
    )
    plain = tree.plain()
    assert plain["seed"] == 1
    assert plain["steps"] == [{"clean": "web"}]
    assert plain["execution"] == {"workers": 2, "memory": "2 GiB", "training": {"nodes": 8, "devices": 4}}
    assert at(tree, "execution", "workers").place.file.endswith("base.yaml")
    assert at(tree, "execution", "training", "nodes").place.file.endswith("top.yaml")


@pytest.mark.parametrize(
    ("section", "below", "above"),
    [
        ("domains", "max_epochs: {a: 1, b: 2}", "max_epochs: {a: 3}"),
        ("tokenizer", "text: {shares: {a: 0.5, b: 0.5}}", "text: {shares: {a: 1}}"),
        ("ablation", "bounds: {a: [0, 1], b: [0, 1]}", "bounds: {a: [0, 0.5]}"),
        ("ablation", "objective: {a: 0.5, b: 0.5}", "objective: {a: 1}"),
    ],
)
def test_extends_replaces_shares_bounds_and_caps_whole(write, section, below, above):
    write("base.yaml", f"{section}: {{{below}}}\n")
    tree = load(write("top.yaml", f"extends: base.yaml\n{section}: {{{above}}}\n"))
    assert tree.plain()[section] == parsed(f"{{{above}}}")


def test_extends_chain_remembers_each_file_and_folder(write):
    write("far/a.yaml", "execution: {raw: corpora}\n")
    write("far/b.yaml", "extends: a.yaml\n")
    tree = load(write("top.yaml", "extends: far/b.yaml\nexecution: {workdir: work}\n"))
    execution = tree.plain()["execution"]
    assert execution["raw"].folder.endswith("/far")
    assert not execution["workdir"].folder.endswith("/far")


def test_extends_mapping_over_a_preset_word_changes_the_preset(write):
    write("base.yaml", "model: llama_15m\n")
    tree = load(write("top.yaml", "extends: base.yaml\nmodel: {context: 512}\n"))
    assert tree.plain()["model"] == {"preset": "llama_15m", "context": 512}
    assert at(tree, "model", "preset").place.file.endswith("base.yaml")


@pytest.mark.parametrize("text", ["extends: self.yaml\n", "extends: other.yaml\n"])
def test_extends_in_a_circle_is_refused(write, text):
    write("other.yaml", "extends: self.yaml\n")
    with pytest.raises(RecipeErrors, match="cannot extend itself"):
        load(write("self.yaml", text))


def test_extends_missing_file_is_named_with_its_line_and_the_nearest(write):
    write("de_web.yaml", "seed: 1\n")
    with pytest.raises(
        RecipeErrors, match=r"top.yaml:2: extends: .*de_wbe.yaml: no such file.*did you mean de_web.yaml"
    ) as e:
        load(write("top.yaml", "\nextends: de_wbe.yaml\n"))
    assert len(e.value.errors) == 1


STEPS = """
    seed: 1
    sources: {a: {sample: 1}, b: {path: x}}
    steps:
      - rules: gopher
      - language
      - dedup: {name: near, preset: minhash}
      - rules: {drop: {x: "a > 1"}}
    schedule:
      - {name: main, tokens: 3B}
    model: llama_15m
"""


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=3", ("seed",), 3),
        ("steps.gopher.min_words=30", ("steps", 0, "rules", "min_words"), 30),
        ("steps.gopher.rules.min_words=30", ("steps", 0, "rules", "min_words"), 30),
        ("steps.language.min_score=0.5", ("steps", 1, "language", "min_score"), 0.5),
        ("steps.near.threshold=0.7", ("steps", 2, "dedup", "threshold"), 0.7),
        ("steps.rules.drop.x=a > 2", ("steps", 3, "rules", "drop", "x"), "a > 2"),
        ("steps.2.threshold=0.7", ("steps", 2, "dedup", "threshold"), 0.7),
        ("schedule.main.tokens=1B", ("schedule", 0, "tokens"), "1B"),
        ("schedule.main.weights={a: 0.5, b: 0.5}", ("schedule", 0, "weights", "b"), 0.5),
        ("model.context=512", ("model", "context"), 512),
        ("execution.training.nodes=2", ("execution", "training", "nodes"), 2),
    ],
)
def test_set_addresses_steps_and_phases_by_name(write, override, path, value):
    tree = load(write("r.yaml", STEPS), override)
    node = at(tree, *path)
    assert node.value == value
    assert str(node.place) == f"--set {override}"


def test_set_keeps_what_it_does_not_name(write):
    before = load(write("r.yaml", STEPS)).plain()
    after = load(write("r.yaml", STEPS), "steps.gopher.min_words=30").plain()
    assert after["steps"][0] == {"rules": {"preset": "gopher", "min_words": 30}}
    assert {**after, "steps": after["steps"][1:]} == {**before, "steps": before["steps"][1:]}


def test_set_star_means_every_key(write):
    sources = load(write("r.yaml", STEPS), "sources.*.sample=0.001").plain()["sources"]
    assert sources == {"a": {"sample": 0.001}, "b": {"path": "x", "sample": 0.001}}


@pytest.mark.parametrize(
    ("override", "fix"),
    [
        ("seed", "write --set path=value"),
        ("steps.gofer.min_words=3", "did you mean gopher?"),
        ("schedule.mian.tokens=3B", "did you mean main?"),
        ("seed.x=3", "nothing stands below it"),
        ("seed={a: 1", "never closed"),
    ],
)
def test_set_that_names_nothing_says_the_fix(write, override, fix):
    with pytest.raises(RecipeErrors) as raised:
        load(write("r.yaml", STEPS), override)
    assert fix in str(raised.value)


def test_located_prints_place_path_value_reason():
    shown = str(Located(Place("r.yaml", 4), "domains.max_epochs", -1, "must be positive"))
    assert shown == "r.yaml:4: domains.max_epochs: value -1: must be positive"
    assert str(Located(Place("r.yaml", 4), "a", None, "why")) == "r.yaml:4: a: value null: why"
    assert str(Located(Place("r.yaml", 4), "a", NOTHING, "missing")) == "r.yaml:4: a: missing"


def test_set_below_the_word_of_an_export_keeps_the_word(write):
    tree = load(write("a.yaml", "export: huggingface\n"), "export.precision=fp32")
    assert tree.plain() == {"export": {"format": "huggingface", "precision": "fp32"}}
