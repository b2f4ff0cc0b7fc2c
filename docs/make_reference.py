"""Write the reference pages that follow from code: docs/study.md, docs/synthetic-guide.md, docs/schema/*.json. Run by
`make docs`."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from statfed.core.codebook import Codebook
from statfed.core.scenario import Case
from statfed.core.study import Study, Target
from statfed.core.synthetic.guide import Limit, guide
from statfed.federation.schema import answer_schema
from statfed.strategies.learning.options import PRIVACY, DescentOptions, LocalOptions, TrainingOptions

DOCS = Path(__file__).parent

HEAD = """# The study file

A study is one TOML file: which method is asked of whose data, under which protection and privacy. `statfed run` takes
such a file, or the name of a training scenario, which is its default study; `--set key.path=value` changes single keys.
`statfed analyse` and `statfed train` make the same study from the command line. Relative paths start from the study
file's folder. Unknown keys are refused. This page is written from the code by `make docs`.

Statistics on tables of the holders; `[options]` are those of the method, `statfed analyse glm --help` lists them:

```toml
method = "glm"
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

A model, trained on tables of the holders:

```toml
method = "dp-fedsgd"
seed = 1

[options]
target = "employed"
features = ["age", "sex", "region"]
rounds = 50
learning_rate = 0.5
holdout = 0.2

[options.model]
name = "mlp"
hidden = 16

[holders]
north = "north.parquet"
south = "south.parquet"
west = "west.parquet"

[privacy]                  # leave the table out to train without differential privacy
unit = "person"
epsilon = 3.0
noise = "shared"

[protection]
name = "secure-aggregation"
```

A reference scenario, whose population the holders get; target and features follow from it:

```toml
scenario = "time-use"
method = "local-sgd"
holders = 4                # or a list of names
seed = 1

[data]
source = "watch"

[options]
rounds = 10
strategy = { name = "fedavg" }
```
"""

OLD = """
# Files of the earlier format

Statistics and training had study files of their own. Such a file is still read, and `statfed run` says in one line what
it took for what; a run's folder has the study as it is now. Overrides with an old key (`--set rounds=3`) work too.

| earlier key | read as |
| --- | --- |
| `analysis` | `method` |
| `training.method` | `method`; `local-sgd` for a scenario without one |
| `rounds`, `model`, `strategy` | `options.rounds`, `options.model`, `options.strategy` |
| `training.KEY` | `options.KEY`; keys that the method never used (`batch_size` of dp-fedsgd, ...) are left out |
| `privacy.clipping_norm` | `options.clipping_norm` |
"""


def _rows(section: type[BaseModel], prefix: str, about: str | None = None, title: str = "") -> list[str]:
    lines = [f"\n## {title or prefix.rstrip('.') or 'top level'}\n"]
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


def _own(section: type[TrainingOptions], title: str) -> list[str]:
    """The options that one training method has beside those of all."""
    lines = [f"\n## {title}\n", "| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    schema: dict[str, Any] = section.model_json_schema()["properties"]
    return lines + [
        f"| `options.{name}` | {_type(schema[name])} | {_default(info)} | {info.description or ''} |"
        for name, info in section.model_fields.items()
        if name not in TrainingOptions.model_fields
    ]


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


def study_page() -> str:
    """docs/study.md."""
    defaults = " and ".join(f"`privacy.{key}` is `{json.dumps(value)}`" for key, value in PRIVACY.items())
    lines = [
        *_rows(Study, ""),
        *_rows(Target, "privacy.", title="privacy, by the margin of error that it may add"),
        *_rows(TrainingOptions, "options.", title="options of every training method"),
        f"\nIn training {defaults} where `[privacy]` says nothing else.",
        *_own(LocalOptions, "more options of local-sgd"),
        *_own(DescentOptions, "more options of dp-fedsgd"),
        OLD.rstrip(),
    ]
    return HEAD + "\n".join(lines) + "\n"


def guide_page() -> str:
    """docs/synthetic-guide.md: the guide of synthetic data, which `statfed synth guide` shows too."""
    known = guide()
    lines = [
        "# Guide of synthetic data\n",
        "This page is written from `guide.toml` by `make docs`; `statfed synth guide` shows",
    ]
    lines += [
        "the same. Limits are conventions, each with its reason; `statfed synth evaluate --limits` changes them.\n"
    ]
    lines += [known.challenge, "\n## Uses"]
    for use in known.uses:
        lines += [
            f"\n### {use.title} (`{use.id}`)\n",
            f"{use.what}. It needs {use.needs}. Risk: {use.risk}. {use.why}\n",
        ]
        lines += [f"Methods, the first choice first: {_named(use.methods)}. Unsuitable: {_named(use.unsuitable)}."]
        lines += [f"Measures: {_named(use.measures)}.\n", *_limits(use.limits)]
    lines += ["\n## Methods\n", "| method | built | idea | assumes | when | when not | private | cost | source |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for way in known.methods:
        told = (way.idea, way.assumes, way.when, way.when_not, way.private, way.cost, way.source)
        lines += [f"| `{way.id}`: {way.title} | {'yes' if way.built else 'no'} | {' | '.join(told)} |"]
    lines += ["\n## Measures\n", "| measure | of | what its figure says | where it misleads | source |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for one in known.measures:
        lines += [f"| `{one.id}`: {one.title} | {one.kind} | {one.reads} | {one.misleads} | {one.source} |"]
    whole = known.population
    lines += ["\n## Whole populations\n", f"{whole.warning}\n", f"{whole.utility}\n"]
    lines += [f"Not judged: {_named(whole.not_judged)}. Limits, whatever the use:\n", *_limits(whole.limits)]
    lines += ["\n## Kinds of sources\n", *(f"- {one.title}: {one.advice}" for one in known.sources)]
    return "\n".join(lines) + "\n"


def _named(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _limits(limits: tuple[Limit, ...]) -> list[str]:
    rows = [f"| `{one.measure}` | {one} | {one.reason} |" for one in limits]
    return ["| measure | limit | reason |", "| --- | --- | --- |", *rows]


def pages() -> dict[Path, str]:
    """Every generated page and its text."""
    from statfed.lab.recommend import Answer as Recommendation

    schemas: dict[str, dict[str, Any]] = {
        "answer": answer_schema(),
        "case": Case.model_json_schema(),
        "recommendation": Recommendation.model_json_schema(mode="serialization"),
        "codebook": Codebook.model_json_schema(),
        "study": Study.model_json_schema(),
    }
    written = {
        DOCS / "schema" / f"{name}.json": json.dumps(schema, indent=2) + "\n" for name, schema in schemas.items()
    }
    return {DOCS / "study.md": study_page(), DOCS / "synthetic-guide.md": guide_page(), **written}


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
