"""Which schemas reach the compiler: a part of the language, with bounded numbers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.engine.text.grammar import GrammarCompiler
from qwen_aio.engine.text.json_schema import KEYWORDS, MAX_COUNT, MAX_DEPTH, read_schema
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.errors import InvalidRequest

# As pydantic writes it for a class with an optional list of others.
ORDER = {
    "$defs": {
        "Item": {
            "title": "Item",
            "type": "object",
            "properties": {"name": {"title": "Name", "type": "string"}, "count": {"type": "integer", "minimum": 1}},
            "required": ["name", "count"],
            "additionalProperties": False,
        }
    },
    "title": "Order",
    "description": "What was bought.",
    "type": "object",
    "properties": {
        "items": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/Item"}}, {"type": "null"}], "default": None},
        "when": {"type": "string", "format": "date"},
    },
    "required": ["items", "when"],
}


def nested(depth: int) -> dict:
    return {"items": nested(depth - 1)} if depth else {}


def refusal(schema: object) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read_schema(schema if isinstance(schema, str) else json.dumps(schema))
    assert caught.value.param == "json_schema"
    assert len(caught.value.message) < 400
    return caught.value.message


def test_a_schema_of_pydantic_is_read_without_its_annotations() -> None:
    read = read_schema(json.dumps(ORDER))
    assert read["$defs"]["Item"]["properties"] == {
        "name": {"type": "string"},
        "count": {"type": "integer", "minimum": 1},
    }
    assert read.keys() == {"$defs", "type", "properties", "required"}
    assert read["properties"]["items"].keys() == {"anyOf"}


def test_a_property_may_be_called_like_an_annotation() -> None:
    assert read_schema('{"properties": {"title": {"type": "string"}}}')["properties"].keys() == {"title"}


@pytest.mark.parametrize(
    "name", ["pattern", "allOf", "oneOf", "not", "$id", "x-guidance", "multipleOf", "x" * 5000, "\n"]
)
def test_another_keyword_is_refused_by_name(name: str) -> None:
    message = refusal({"properties": {"a": {name: {}}}})
    assert json.dumps(name[:40]) in message
    assert "anyOf" in message  # what is known


@pytest.mark.parametrize(
    "schema",
    [
        {"minimum": -(2**63), "maximum": -(2**63)},  # ended the process: llguidance 1.9.1
        {"maximum": 1.1e9},
        {"minimum": 1e-300},
        {"minimum": True},
        {"exclusiveMinimum": "1"},
        {"enum": [10**40]},
        {"enum": [[1]]},
        {"enum": []},
        {"const": {}},
        {"minItems": MAX_COUNT + 1},
        {"maxLength": -1},
        {"maxLength": 1.5},
        {"type": "banana"},
        {"type": []},
        {"type": [["string"]]},
        {"format": "regex"},
        {"required": "a"},
        {"required": [1]},
        {"$ref": "http://127.0.0.1:1/x"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#"},
        {"properties": []},
        {"anyOf": {}},
    ],
)
def test_a_value_out_of_bounds_is_refused_by_the_name_of_its_keyword(schema: dict[str, object]) -> None:
    assert f'"{next(iter(schema))}" is not supported with this value' in refusal(schema)


@pytest.mark.parametrize(
    "written",
    ["", "x", "[1]", '"x"', "null", '{"items": null}', '{"minimum": NaN}', '{"items": ' * 2000 + "{}" + "}" * 2000],
)
def test_what_is_no_schema_is_refused(written: str) -> None:
    assert "schema" in refusal(written)


def test_a_schema_is_nested_so_deep_and_no_deeper() -> None:
    assert read_schema(json.dumps(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    assert f"more than {MAX_DEPTH} deep" in refusal(nested(MAX_DEPTH + 1))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["#/$defs/a", "string"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYWORDS, "a", "b"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYWORDS), VALUES, max_size=5), st.integers(0, 30))
def test_whatever_is_read_compiles_or_is_refused(
    tokenizer: Tokenizer, schema: dict[str, object], num_steps: int
) -> None:
    try:
        grammar = GrammarCompiler(tokenizer, end_ids=tokenizer.end_ids).compile(json.dumps(schema))
        for _ in range(num_steps):
            ids = grammar.allowed().nonzero()[0].tolist()
            if ids[0] in tokenizer.end_ids:
                break
            grammar.accept(ids[len(ids) // 2])
    except InvalidRequest as exc:
        assert exc.param == "json_schema"
