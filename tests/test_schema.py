"""Reading JSON strictly, and holding it to a schema: what is said of what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hiresvit.schema import COUNT, NAME, NUMBER, SPEC, WORD, compile_schema, keyed, many, read_json, record, some
from hiresvit.spec import ModelSpec, PreprocessSpec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("NaN", "NaN, which is no finite number"),
        ("[-Infinity]", "-Infinity"),
        ("1e999", "1e999"),
        ("9" * 21, "a number of 21 digits"),
        ("9" * 5000, "a number of 5000 digits"),
        ('{"a": {"b": 1, "b": 2}}', "a key twice"),
        ("[" * 41 + "]" * 41, "deeper than 40"),
        ('{"a":' * 41 + "1" + "}" * 41, "deeper than 40"),
        ("[" * 100_000, "deeper than 40"),
        ("{", "Expecting"),
        ("", "Expecting"),
        (b"\xff", "decode"),
    ],
)
def test_what_is_no_json_of_ours(text: str | bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_json(text)


@pytest.mark.parametrize(
    "text", ["[" * 40 + "]" * 40, "-9223372036854775808", '"\\ud800"', "3", "null", "[1.5, 1e-300]"]
)
def test_what_is(text: str) -> None:
    assert read_json(text) == json.loads(text)


CHECK = compile_schema(record({"size": COUNT, "name": WORD}, {"rows": many(keyed(NUMBER)), "more": some(NAME)}))
GOOD: dict[str, Any] = {"size": 3, "name": "a.b"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": 3.0}, "size must be integer"),
        ({"size": True}, "size must be integer"),
        ({"size": -1}, "size must be bigger than or equal to 0"),
        ({"size": 2**63}, "size must be smaller than"),
        ({"name": "../a"}, "name must be a plain name: letters, digits and _"),
        ({"name": "a\n"}, "name must be a plain name"),
        ({"more": "a\u202eb"}, "more must be a name: at most 1000 characters, all of which can be seen"),
        ({"rows": [{}, {"a": "1"}]}, r"rows\[1\].a must be number"),
        ({"rows": [{"\x1b": 1}]}, r"rows\[0\] must not contain {'\\x1b'} properties"),
        ({"other": 1}, "it must not contain {'other'} properties"),
    ],
)
def test_the_place_and_what_is_wanted_there_are_said(change: dict[str, Any], said: str) -> None:
    CHECK(GOOD)
    with pytest.raises(ValueError, match=said) as caught:
        CHECK(GOOD | change)
    assert "\n" not in str(caught.value)


def test_a_key_that_is_missing_is_said() -> None:
    with pytest.raises(ValueError, match=r"^it must contain .*'size'"):
        CHECK({"name": "a"})


def test_every_spec_is_of_its_schema() -> None:
    spec = ModelSpec(
        *("hrvit_b1", "hrvit", "segment", (512, 1024), 19, PreprocessSpec("crop", "bicubic", 0.9)),
        overrides=(("drop_path", 0.1), ("head", None), ("pool_small", True), ("windows", (1, 2, 9, 9))),
    )
    check = compile_schema(SPEC)
    check(json.loads(json.dumps(spec.to_json())))
    for field in spec.to_json():
        if field != "strides":
            with pytest.raises(ValueError, match=field):
                check({key: value for key, value in spec.to_json().items() if key != field})
