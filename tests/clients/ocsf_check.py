"""Holds lines of OCSF against the published schema (PyPI ocsf-json-schema): argv = files, or standard input."""

import fileinput
import json
import sys

import jsonschema
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

validators = {}
schema = None
seen = set()
checked = 0
for line in fileinput.input():
    event = json.loads(line)
    if schema is None:
        schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=event["metadata"]["version"]))
    profiles = tuple(sorted(event["metadata"]["profiles"]))
    key = (event["class_uid"], profiles)
    if key not in validators:
        name = schema.lookup_class_name_from_uid(event["class_uid"])
        validators[key] = jsonschema.Draft202012Validator(schema.get_class_schema(name, list(profiles)))
    errors = list(validators[key].iter_errors(event))
    if errors:
        sys.exit(f"{errors[0].json_path}: {errors[0].message[:500]}\n{line}")
    checked += 1
    seen.add(event["class_uid"])
print(f"{checked} events of classes {sorted(seen)}")
