"""`statfed predict`: what a model that was saved says of new records."""

from pathlib import Path
from typing import Annotated

import typer

from statfed.cli._output import Json, Overwrite, emit_json, say
from statfed.core.errors import UsageError
from statfed.core.outputs import Destinations

_FORMS = (".parquet", ".csv")


def predict(
    model: Annotated[Path, typer.Argument(help="What `statfed train ... --save` wrote.")],
    data: Annotated[str, typer.Argument(help="CSV, Parquet or Arrow file, or duckdb:///FILE?table=NAME.")],
    output: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Parquet or CSV file of predictions.")],
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Predict the target of new records, on this machine alone.

    [bold]Example[/bold]

    statfed predict employed.statfed new.parquet -o predicted.parquet
    """
    from statfed.federation.export import spreadsheet
    from statfed.federation.models import load_model

    if output.suffix not in _FORMS:
        raise UsageError(f"--out: got {output.name}; want a file ending in {' or '.join(_FORMS)}")
    to = Destinations((str(model), data), overwrite)
    to.check(output)
    found = load_model(model).predict(data)
    with to.writing(output) as draft:
        if output.suffix == ".csv":
            spreadsheet(found, draft)
        else:
            found.to_parquet(draft, index=False)
    if as_json:
        emit_json({"file": str(output), "records": len(found), "columns": list(found.columns)})
    else:
        say(f"{len(found)} predictions: {output}")
