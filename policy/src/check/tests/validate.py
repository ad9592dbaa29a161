"""Prints the name of each TOML file that a JSON Schema refuses: validate.py SCHEMA FILE..."""

import json
import pathlib
import sys
import tomllib

import jsonschema


def as_json(value):
    """TOML's dates and times are strings in JSON."""
    if isinstance(value, dict):
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_json(inner) for inner in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


schema = json.loads(pathlib.Path(sys.argv[1]).read_text())
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
for name in sys.argv[2:]:
    document = as_json(tomllib.loads(pathlib.Path(name).read_text()))
    error = next(validator.iter_errors(document), None)
    if error is not None:
        print(pathlib.Path(name).name, "/".join(map(str, error.absolute_path)), error.message[:200])
