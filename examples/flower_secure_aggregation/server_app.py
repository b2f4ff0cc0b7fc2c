"""A ServerApp whose strategy only ever sees averages."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam

from statfed.server.protected_grid import ProtectedGrid

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    strategy = FedAdam(eta=0.1, min_train_nodes=3, min_evaluate_nodes=3, min_available_nodes=3)
    protected = ProtectedGrid(
        grid, strategy, limit=10.0, most_examples=10_000, train_metrics={"loss": 1e3}, evaluate_metrics={"loss": 1e3}
    )
    result = strategy.start(grid=protected, initial_arrays=ArrayRecord({"w": Array(np.zeros(4))}), num_rounds=3)
    context.state["model"] = result.arrays
