"""The JSON schema of an answer: what `statfed analyse ... --json` writes."""

from typing import Any

_NUMBER: dict[str, Any] = {"type": ["number", "null"]}
_TEXT: dict[str, Any] = {"type": "string"}
_WHOLE: dict[str, Any] = {"type": ["integer", "null"]}

# name of a table: what a row is, keys that mean the same in every analysis, those that are always there
ROWS: dict[str, tuple[str, dict[str, dict[str, Any]], tuple[str, ...]]] = {
    "coefficients": (
        "one row per coefficient of a model",
        {"name": _TEXT, "estimate": _NUMBER, "std_error": _NUMBER},
        ("name", "estimate", "std_error"),
    ),
    "cells": (
        "one row per combination of categories, whose values stand under the names in `by`, or per bin of a "
        "histogram; null where suppressed",
        {"count": _WHOLE, "total": _NUMBER},
        ("count",),
    ),
    "margins": (
        "of a table: as cells, where null under a category column means summed over it; of a calibration: the sampled, "
        "the calibrated and the target total of each code",
        {"count": _WHOLE, "total": _NUMBER},
        (),
    ),
    "columns": (
        "one row per described column",
        {"column": _TEXT, "count": _WHOLE, "mean": _NUMBER, "variance": _NUMBER, "std_error": _NUMBER},
        ("column", "count", "mean", "variance", "std_error"),
    ),
    "estimates": (
        "one row per column and domain",
        {"estimate": _NUMBER, "std_error": _NUMBER},
        ("estimate", "std_error"),
    ),
}


def answer_schema() -> dict[str, Any]:
    """The schema, for docs/schema/answer.json and for tests."""
    row = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}
    tables = {
        name: {
            "type": "array",
            "description": text,
            "items": row | {"required": list(required), "properties": keys},
        }
        for name, (text, keys, required) in ROWS.items()
    }
    scalars = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Answer",
        "description": "A released result, the run that produced it, and what it cost. `tables` lists the names of its "
        "tables; each is a key of this document with an array of rows.",
        "type": "object",
        "required": ["analysis", "title", "by", "facts", "tables", "notes", "disclosure", "run", "query", "spending"],
        "properties": {
            "analysis": _TEXT,
            "title": _TEXT,
            "by": {"type": "array", "items": _TEXT, "description": "category columns of `cells` and `margins`"},
            "facts": scalars,
            "tables": {"type": "array", "items": _TEXT, "minItems": 1},
            "notes": {"type": "array", "items": _TEXT},
            "df": {"type": ["number", "null"], "description": "degrees of freedom of t-intervals; null: normal ones"},
            "privacy": {"anyOf": [scalars, {"type": "null"}]},
            "disclosure": {
                "type": "object",
                "description": "rules that ran on the release, method, and how many cells were treated how",
            },
            "run": _TEXT,
            "created": _TEXT,
            "version": _TEXT,
            "engine": _TEXT,
            "query": {"type": "object", "description": "what the holders agreed to"},
            "query_digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "codebook_drafted": {"type": "boolean"},
            "sums": {"type": "array", "items": {"type": "object", "required": ["ask", "seconds", "bytes_up"]}},
            "spending": {"type": "array", "items": {"type": "object", "required": ["holder", "filter_epsilon"]}},
            "learns": {"type": "array", "items": row},
            "seconds": {"type": "number"},
            "memory_mib": {"type": "object", "additionalProperties": {"type": "number"}},
            **tables,
        },
        "additionalProperties": {"type": "array", "items": row},
    }
