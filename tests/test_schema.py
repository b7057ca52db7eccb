import json
from pathlib import Path

import jsonschema
import pytest

from strangle_mw.schema import json_schema
from test_config import SHAPES, as_data

ROOT = Path(__file__).parents[1]
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
# What a shape can show; the rest is a matter of meaning.
BY_SHAPE = {"unknown-key", "type", "choice", "missing"}


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_stored_schema_is_the_current_one():
    stored = json.loads((ROOT / "docs" / "strangle.schema.json").read_text())
    assert stored == json.loads(json.dumps(json_schema())), "run: make schema"


def test_a_good_table_is_valid():
    VALIDATOR.validate(as_data())


@pytest.mark.parametrize(("source", "found"), SHAPES.values(), ids=SHAPES)
def test_the_schema_refuses_the_shapes_that_loading_refuses(source, found):
    data = {"routes": source} if isinstance(source, list) else source
    assert VALIDATOR.is_valid(data) is not bool({id_ for _, id_ in found} & BY_SHAPE)


def test_every_property_is_described():
    schema = json_schema()
    for table in (schema, *schema["$defs"].values()):
        for name, value in table["properties"].items():
            assert value.get("description"), name


def test_what_only_python_can_say_is_not_in_it():
    definitions = json_schema()["$defs"]
    assert "when" not in definitions["Route"]["properties"]
    assert "verify" not in definitions["Upstream"]["properties"]
    assert "lambda" in definitions["Upstream"]["properties"]
