import json

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.tuning.examples import Turn
from training.tuning.templates import SOURCES, Template, TemplateError, with_system
from training.tuning.tokens import ask_ids, write_tokenizer

transformers = pytest.importorskip("transformers")

MARKED = """\
{% for message in messages %}
    {% if message['role'] == 'assistant' %}
<|im_start|>assistant
{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}

    {% else %}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
    {% endif %}
{% endfor %}
"""
text = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cn")), min_size=1, max_size=30).map(
    str.strip
)
talks = st.lists(st.tuples(text.filter(bool), text.filter(bool)), min_size=1, max_size=4)


def turns_of(pairs, system=None):
    turns = [Turn(role, said) for pair in pairs for role, said in zip(("user", "assistant"), pair)]
    return [Turn("system", system), *turns] if system else turns


@given(pairs=talks)
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("name", sorted(SOURCES))
def test_spans_are_the_answers_with_their_end_marks(name, pairs):
    end = "<|im_end|>" if name == "chatml" else "</s>"
    rendered = Template(name, SOURCES[name], {"eos": "</s>"}).render(turns_of(pairs))
    assert [rendered.text[start:stop] for start, stop in rendered.spans] == [answer + end for _, answer in pairs]
    # What stands before an answer is what the model is asked with.
    before = Template(name, SOURCES[name], {"eos": "</s>"}).text_of(turns_of(pairs)[:1], ask=True)
    assert rendered.text[: rendered.spans[0][0]] == before


@given(pairs=talks)
@settings(max_examples=20, deadline=None)
def test_marked_answers_stand_where_grown_ones_do(pairs):
    marked, grown = Template("m", MARKED), Template("chatml", SOURCES["chatml"])
    assert marked.render(turns_of(pairs)) == grown.render(turns_of(pairs))


def test_marked_answers_are_those_that_transformers_finds(tokenizer_folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder)
    pairs = [("the mill?", "grinds grain"), ("ölig 磨坊?", "water — wheel\nstone")]
    turns = turns_of(pairs, "old town")
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    theirs = tokenizer.apply_chat_template(
        messages, chat_template=MARKED, return_assistant_tokens_mask=True, return_dict=True, tokenize=True
    )
    rendered = Template("m", MARKED).render(turns)
    places = tokenizer(rendered.text, return_offsets_mapping=True)["offset_mapping"]
    ours = [int(any(start <= first < stop for start, stop in rendered.spans)) for first, _ in places]
    assert theirs["assistant_masks"] == ours


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_built_in_templates_mean_the_same_to_transformers(tokenizer_folder, name):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder)
    turns = turns_of([("the mill?", "grinds"), ("what?", "grain")], "old")
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    for ask in (False, True):
        theirs = tokenizer.apply_chat_template(
            messages[: 3 - ask], chat_template=SOURCES[name], tokenize=False, add_generation_prompt=ask
        )
        ours = Template(name, SOURCES[name], {"eos": "<|endoftext|>"}).text_of(turns[: 3 - ask], ask)
        assert ours == theirs


LINES = "\n  {% for m in messages %}\n  <{{ m['content'] }}>\n{% endfor %}"


@pytest.mark.parametrize("source", [*SOURCES.values(), MARKED, LINES])
def test_default_system_turn_is_written_by_the_template_where_none_is_given(tokenizer_folder, tmp_path, source):
    system = """Du bist 'die "Mühle"' 🌾 \\n \\ {% endif %}{{ x }}\nund mahlst."""
    template = Template("t", source, {"eos": "<|endoftext|>"})
    write_tokenizer(tokenizer_folder, tmp_path, template, system)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)

    def theirs(turns):
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def ours(turns):
        return template.text_of(turns, ask=True).replace("\ufdd0", "").replace("\ufdd1", "")

    talk = turns_of([("the mill?", "grinds"), ("what?", "grain")])[:3]
    told, other = [Turn("system", system), *talk], [Turn("system", "old"), *talk]
    assert theirs(talk) == theirs(told) == ours(told)
    assert theirs(other) == ours(other)
    assert ask_ids(tmp_path, "the mill?")[1] == ask_ids(tmp_path, "the mill?", system)[1]
    assert with_system(source, None) == source


def test_template_that_trims_writes_indented_answers():
    source = (
        "{% for one in messages %}<{{ one['content'] | trim }}>{% endfor %}{% if add_generation_prompt %}<{% endif %}"
    )
    rendered = Template("trims", source).render(turns_of([("x?", "    return x"), ("y?", "\tz")]))
    assert rendered.text == "<x?><return x><y?><z>"
    assert [rendered.text[start:stop] for start, stop in rendered.spans] == ["return x>", "z>"]


def test_alpaca_keeps_instruction_and_input_apart():
    turns = [Turn("user", "Translate.\n\nMühle", ("Translate.", "Mühle")), Turn("assistant", "mill")]
    found = Template("alpaca", SOURCES["alpaca"], {"eos": "</s>"}).render(turns)
    assert found.text == "### Instruction:\nTranslate.\n\n### Input:\nMühle\n\n### Response:\nmill</s>\n\n"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}\n{% endif %}{% endfor %}",
            "system's turn 'old",
        ),
        (
            "{% for m in messages %}{{ m.content }}\n{% endfor %}{{ messages | length }}",
            "writes turn 3 of 3 differently",
        ),
        ("{% for m in messages %}{{ m.content }\n{% endfor %}", r"line 1: .*expected"),
        (
            "{% for m in messages %}{{ m.content }}{% generation %}{% endgeneration %}{% endfor %}",
            "marks 3 answers of 1",
        ),
    ],
)
def test_template_that_cannot_be_learnt_from_says_why(source, told):
    if "writes" in told:
        source = source.replace("{{ messages | length }}", "{% if messages | length == 2 %}!{% endif %}")
        with pytest.raises(TemplateError, match="differently once"):
            Template("t.jinja", source).render([*turns_of([("a", "b"), ("c", "d")])])
        return
    with pytest.raises(TemplateError, match=told):
        Template("t.jinja", source).render(turns_of([("the mill?", "grinds")], "old town"))


def test_template_may_refuse_a_conversation_itself():
    refusing = Template("t", "{{ raise_exception('no ' + messages[0].role) }}")
    with pytest.raises(jinja2.TemplateError, match="no system"):
        refusing.render(turns_of([("a", "b")], "old"))
    assert json.loads(Template("t", "{{ messages[0] | tojson }}").text_of([Turn("user", "ä")]))["content"] == "ä"
