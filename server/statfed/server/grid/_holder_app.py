"""The installed holder application, by name: `server` never imports `client`.

The simulation engines play the holders' part, so they load the same ClientApp that a holder's runner does, by the
reference that the bundle's manifest names.
"""

import importlib

from flwr.clientapp import ClientApp

from statfed.core.errors import EngineError

HOLDER_APP = "statfed.client.flower.app:app"


def holder_app() -> ClientApp:
    """The ClientApp of the installed holder package. Raises EngineError when that room is not installed."""
    module, _, name = HOLDER_APP.partition(":")
    try:
        app = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise EngineError(f"holder application {HOLDER_APP}: not installed ({error})") from None
    if not isinstance(app, ClientApp):
        raise EngineError(f"{HOLDER_APP}: got {type(app).__name__}; want a Flower ClientApp")
    return app
