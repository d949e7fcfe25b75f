"""The JSON Schema of params.yaml, with which editors complete and check it: `python -m headtohead.schema` writes it."""

import json
from pathlib import Path
from typing import Any

from headtohead.attention.patterns import PATTERNS
from headtohead.attention.spec import Performer
from headtohead.params import Params

PATH = Path("params.schema.json")


def schema() -> dict[str, Any]:
    """Made from the types that check params.yaml. What only they can check (a sum, a name elsewhere) it leaves out."""
    found = _without_titles(Params.model_json_schema())
    variant = found["$defs"]["AttentionSpec"]
    variant["description"] = "What a variant computes: kernel, positions, and a pattern with its numbers, or layers."
    numbers = {name: Performer.model_json_schema()["properties"][name] for name in Performer.model_fields}
    for pattern in PATTERNS.values():
        numbers |= pattern.model_json_schema().get("properties", {})
    variant["properties"]["pattern"] |= {"enum": list(PATTERNS)}
    variant["properties"] |= _without_titles(numbers)
    variant["additionalProperties"] = False
    variant["allOf"] = [{"if": {"properties": {"pattern": {"const": name}}, "required": ["pattern"]},
                         "then": {"required": needed}} for name, pattern in PATTERNS.items()
                        if (needed := pattern.model_json_schema().get("required"))]
    return {"$schema": "http://json-schema.org/draft-07/schema#", **found}


def _without_titles(value: Any) -> Any:
    """Pydantic's titles only repeat the keys."""
    if isinstance(value, dict):
        return {key: _without_titles(inner) for key, inner in value.items()
                if key != "title" or not isinstance(inner, str)}
    return [_without_titles(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    PATH.write_text(json.dumps(schema(), indent=2) + "\n", encoding="utf-8")
