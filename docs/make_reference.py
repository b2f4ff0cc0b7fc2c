"""Write the reference pages that follow from code: docs/study.md, docs/schema/*.json. Run by `make docs`."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from statfed.core.codebook import Codebook
from statfed.core.scenario import Case
from statfed.core.study import Study
from statfed.federation import AnalysisStudy
from statfed.federation.schema import answer_schema
from statfed.federation.trained import Result
from statfed.lab.recommend import Answer

DOCS = Path(__file__).parent

HEAD = """# The study file

A study is one TOML file: what is computed, with whom, under which protection and privacy. `statfed run` takes a
scenario's name (its default study) or such a file; `--set key.path=value` changes single keys. Unknown keys are
refused. This page is written from the code by `make docs`.

```toml
scenario = "time-use"
holders = 4                # or a list of names
rounds = 10
engine = "processes"
seed = 1

[data]
source = "watch"

[strategy]
name = "fedavg"

[privacy]                  # leave the table out to train without differential privacy
unit = "record"
epsilon = 3.0
delta = 1e-5
```
"""

ANALYSIS = """
# The study file of an analysis

A study that names an `analysis` asks a question of tables. `statfed run people.study.toml` runs it with simulated
holders; `statfed analyse` is the same from the command line. Relative paths start from the study file's folder.

```toml
analysis = "glm"
codebook = "people.codebook.toml"
engine = "processes"
where = ["age >= 18"]
disclosure = "standard"    # or "none", or a table of rules

[options]
formula = "employed ~ age + C(region)"
family = "binomial"

[holders]
north = "north.parquet"
south = "duckdb:///south.db?table=people"
```
"""


def _rows(section: type[BaseModel], prefix: str, about: str | None = None) -> list[str]:
    lines = [f"\n## {prefix.rstrip('.') or 'top level'}\n"]
    if prefix and section.__doc__:
        said = section.__doc__.strip().splitlines()[0]
        lines.append((f"{said} Here: {about}." if about else said) + "\n")
    lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    below: list[str] = []
    schema: dict[str, Any] = section.model_json_schema()["properties"]
    for name, info in section.model_fields.items():
        inner = _section(info)
        if inner is not None:
            below += _rows(inner, f"{prefix}{name}.", info.description)
            continue
        lines.append(f"| `{prefix}{name}` | {_type(schema[name])} | {_default(info)} | {info.description or ''} |")
    return lines + below


def _section(info: FieldInfo) -> type[BaseModel] | None:
    options = [info.annotation, *getattr(info.annotation, "__args__", ())]
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f'`"{value}"`' for value in schema["enum"])
    if "const" in schema:
        return f'`"{schema["const"]}"`'
    limits = {"exclusiveMinimum": "> ", "minimum": ">= ", "exclusiveMaximum": "< ", "maximum": "<= "}
    bounds = [f"{sign}{schema[key]}" for key, sign in limits.items() if key in schema]
    kinds = {"number": "number", "integer": "whole number", "string": "text", "boolean": "true or false"}
    kind = kinds.get(schema.get("type", ""), schema.get("type", "any"))
    return kind + (f" ({', '.join(bounds)})" if bounds else "")


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "`{}`" if info.default_factory else "(required)"
    return f"`{json.dumps(info.default)}`"


def pages() -> dict[Path, str]:
    """Every generated page and its text."""
    return {
        DOCS / "study.md": HEAD + "\n".join([*_rows(Study, ""), ANALYSIS, *_rows(AnalysisStudy, "")]) + "\n",
        DOCS / "schema" / "analysis-study.json": json.dumps(AnalysisStudy.model_json_schema(), indent=2) + "\n",
        DOCS / "schema" / "answer.json": json.dumps(answer_schema(), indent=2) + "\n",
        DOCS / "schema" / "case.json": json.dumps(Case.model_json_schema(), indent=2) + "\n",
        DOCS / "schema" / "recommendation.json": json.dumps(Answer.model_json_schema(mode="serialization"), indent=2)
        + "\n",
        DOCS / "schema" / "codebook.json": json.dumps(Codebook.model_json_schema(), indent=2) + "\n",
        DOCS / "schema" / "study.json": json.dumps(Study.model_json_schema(), indent=2) + "\n",
        DOCS / "schema" / "result.json": json.dumps(Result.model_json_schema(), indent=2) + "\n",
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
