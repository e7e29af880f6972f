"""Text into plain values: each key once, no dates, nothing that grows by itself."""

import pytest

from controller.definition.document import Syntax, load
from controller.definition.layers import layer_from
from controller.errors import InvalidInput


def refusal(text: str, syntax: Syntax) -> str:
    with pytest.raises(InvalidInput) as refused:
        load(text, syntax=syntax, what="it")
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "syntax", "said"),
    [
        ('{"a": 1, "a": 1}', Syntax.JSON, "it: the key 'a' stands there twice; keep one"),
        (
            '{"models": [{}, {"service": {"port": 1, "x": 2, "port": 3}}]}',
            Syntax.JSON,
            "it: the key 'models[1].service.port' stands there twice; keep one",
        ),
        ("a: 1\nb: 2\na: 3", Syntax.YAML, "it: line 3: the key 'a' stands there twice; keep one"),
        (
            "models:\n- name: x\n  service: {port: 1}\n  name: y\n",
            Syntax.YAML,
            "it: line 4: the key 'name' stands there twice; keep one",
        ),
        ("a = 1\na = 2\n", Syntax.TOML, "it is not TOML: Cannot overwrite a value (at line 2,"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_place(
    text: str, syntax: Syntax, said: str
) -> None:
    """R-25"""
    assert refusal(text, syntax).startswith(said)


def test_the_same_key_at_two_places_is_no_repetition() -> None:
    for text, syntax in (
        ('[{"a": {"a": 1}}, {"a": 2}]', Syntax.JSON),
        ("[{a: {a: 1}}, {a: 2}]", Syntax.YAML),
    ):
        assert load(text, syntax=syntax, what="it") == [{"a": {"a": 1}}, {"a": 2}]


def test_what_looks_like_a_date_stays_text() -> None:
    text = "created: 2024-01-31\nat: 2024-01-31T10:00:00Z\ncount: 3\nratio: 1.5\nyes: true\n"
    assert load(text, syntax=Syntax.YAML, what="it") == {
        "created": "2024-01-31",
        "at": "2024-01-31T10:00:00Z",
        "count": 3,
        "ratio": 1.5,
        True: True,
    }


def test_anchors_are_read_and_merging_is_refused() -> None:
    assert load("a: &x [1]\nb: *x", syntax=Syntax.YAML, what="it") == {"a": [1], "b": [1]}
    said = refusal("base: &x {a: 1}\nmore:\n  <<: *x\n", Syntax.YAML)
    assert said == "it: line 3: '<<' is not read; write the keys out"


def test_a_value_made_of_aliases_is_told_in_few_words() -> None:
    lines = ["m0: &m0 [x]"]
    lines += [f"m{n}: &m{n} [{', '.join([f'*m{n - 1}'] * 9)}]" for n in range(1, 30)]
    text = "\n".join([*lines, "name: a", "revision: *m29"])
    document = load(text, syntax=Syntax.YAML, what="it")
    assert isinstance(document, dict)
    with pytest.raises(InvalidInput) as refused:
        layer_from({"models": [{"name": document["m29"]}]}, what="it")
    assert str(refused.value).startswith("it: models[0].name: expected str | null, got array, foun")
    assert len(str(refused.value)) < 200


def test_merged_merges_cost_nothing() -> None:
    lines = ["m0: &m0 {a: 1}"]
    lines += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, 30)]
    assert "'<<' is not read" in refusal("\n".join(lines), Syntax.YAML)
