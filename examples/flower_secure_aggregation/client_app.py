"""A ClientApp whose replies leave inside protected sums."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from statfed.client.flower.mod import protect

app = ClientApp(mods=[protect()])


@app.train()
@app.evaluate()
def step(message: Message, context: Context) -> Message:
    rng = np.random.default_rng(context.node_id % 2**32)  # stands for the node's own data: y = x . (1, 2, 3, 4)
    x = rng.normal(size=(int(rng.integers(50, 200)), 4))
    w = message.content.array_records["arrays"]["w"].numpy()
    error = x @ w - x @ np.arange(1.0, 5.0)
    reply = RecordDict({"metrics": MetricRecord({"loss": float(np.mean(error**2)), "num-examples": len(x)})})
    if message.metadata.message_type == "train":
        reply["arrays"] = ArrayRecord({"w": Array(w - 0.2 * x.T @ error / len(x))})
    return Message(reply, reply_to=message)
