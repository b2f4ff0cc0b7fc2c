"""The holder as a Flower node: runner, application, mod. Nothing else of this room imports flwr."""
