"""The JSON schema of an answer: what every command that runs a study writes with `--json`, and `result.json`."""

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from statfed.core.terms import Terms
from statfed.federation.answers import FORMAT
from statfed.federation.trained import Phase, Spending, Trained

_NUMBER: dict[str, Any] = {"type": ["number", "null"]}
_TEXT: dict[str, Any] = {"type": "string"}
_WHOLE: dict[str, Any] = {"type": ["integer", "null"]}
_SCALARS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
}

# name of a table: what a row is, keys that mean the same in every method, those that are always there
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
    "model": (
        "of a training: one row, of the final model",
        {"parameters": _WHOLE, "rounds": _WHOLE},
        ("parameters", "rounds"),
    ),
    "scores": (
        "of a training that keeps units apart: the model, and beside it the majority class or the mean",
        {"name": _TEXT, "count": _WHOLE},
        ("name", "count"),
    ),
    "classes": (
        "one row per class of the target, on the units kept apart",
        {"class": _TEXT, "count": _WHOLE, "precision": _NUMBER, "recall": _NUMBER, "f1": _NUMBER},
        ("class", "count", "precision", "recall", "f1"),
    ),
    "confusion": (
        "one row per pair of true and predicted class",
        {"class": _TEXT, "predicted": _TEXT, "count": _WHOLE},
        ("class", "predicted", "count"),
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
    references, parts = models_json_schema(
        [(part, "serialization") for part in (Terms, Spending, Trained, Phase)],
        ref_template="#/$defs/{model}",
    )
    refs = {part.__name__: found for (part, _), found in references.items()}
    properties = {**_result(), **_run(refs)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Answer",
        "description": "A released result of any method, the run that produced it, and what it cost. `tables` lists "
        "the names of its tables; each is a key of this document with an array of rows.",
        "type": "object",
        "required": list(properties),
        "properties": {**properties, **tables},
        "additionalProperties": {"type": "array", "items": row},
        "$defs": parts["$defs"],
    }


def _result() -> dict[str, Any]:
    """What was released."""
    return {
        "analysis": {"type": "string", "description": "the method"},
        "title": {"type": "string", "description": "of the result"},
        "by": {"type": "array", "items": _TEXT, "description": "category columns of `cells` and `margins`"},
        "facts": _SCALARS,
        "tables": {"type": "array", "items": _TEXT, "minItems": 1, "description": "the main one first"},
        "keys": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": _TEXT},
            "description": "by table, the columns that say which row it is",
        },
        "notes": {"type": "array", "items": _TEXT},
        "df": {"type": ["number", "null"], "description": "degrees of freedom of t-intervals; null: normal ones"},
        "privacy": {"anyOf": [_SCALARS, {"type": "null"}], "description": "the study's section, null without noise"},
        "disclosure": {
            "type": "object",
            "description": "rules that ran on the release, method, and how many cells were treated how",
        },
    }


def _run(refs: Mapping[str, Any]) -> dict[str, Any]:
    """The run, and what it cost."""
    numbers = {"type": "object", "additionalProperties": {"type": "number"}}
    texts = {"type": "object", "additionalProperties": _TEXT}
    moved = {
        "ask": _TEXT,
        "seconds": {"type": "number"},
        "bytes_down": {"type": "integer", "description": "arrays and packets sent to all parties"},
        "bytes_up": {"type": "integer", "description": "arrays and packets received from all parties"},
        "holder_seconds": numbers,
        "ledger_heads": texts,
        "rules": {"type": "array", "items": _TEXT, "description": "holders' own disclosure rules that passed"},
    }
    learns = dict.fromkeys(("role", "learns", "protected_by"), _TEXT)
    return {
        "format": {"const": FORMAT},
        "run": _TEXT,
        "created": {"type": "string", "description": "UTC, ISO 8601"},
        "version": {"type": "string", "description": "of statfed"},
        "study_title": {"type": "string", "description": "of the study or its scenario, else that of the result"},
        "engine": _TEXT,
        "simulated": {"type": "boolean", "description": "did all parties run on one machine?"},
        "synthetic": {"type": "boolean", "description": "were the records generated, not observed?"},
        "origin": {"type": "string", "description": "which data, in one line"},
        "study": {"type": "object", "description": "the study that was run: study.json"},
        "terms": refs["Terms"] | {"description": "what the holders agreed to"},
        "study_digest": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "of the terms, in every ledger"},
        "codebook_drafted": {"type": "boolean"},
        "warnings": {"type": "array", "items": _TEXT},
        "sums": {
            "type": "array",
            "description": "what each protected sum took",
            "items": {"type": "object", "required": list(moved), "properties": moved},
        },
        "spending": {
            "type": "array",
            "description": "what it cost each holder that was there to the end",
            "items": refs["Spending"],
        },
        "accountant": _TEXT,
        "learns": {
            "type": "array",
            "description": "who learns what",
            "items": {"type": "object", "required": list(learns), "properties": learns},
        },
        "training": {
            "anyOf": [refs["Trained"], {"type": "null"}],
            "description": "what a training has beside its result; null for other methods",
        },
        "phases": {"type": "array", "items": refs["Phase"]},
        "seconds": {"type": "number"},
        "memory_mib": numbers | {"description": "peak resident memory by process, where the engine tells"},
        "versions": texts | {"description": "of the packages that figures depend on"},
    }
