"""A toy ClientApp that runners import in tests of the engine `processes`."""

import os
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query("echo")
def echo(message: Message, context: Context) -> Message:
    """Say back what came, and where this holder lives."""
    said = message.content["ask"]
    assert isinstance(said, ConfigRecord)
    facts = ConfigRecord({**said, "home": str(context.node_config["home"]), "pid": os.getpid()})
    return Message(RecordDict({"reply": facts}), reply_to=message)


@app.query("array")
def array(message: Message, context: Context) -> Message:
    """Send the arrays back."""
    return Message(message.content, reply_to=message)


@app.query("fail")
def fail(message: Message, context: Context) -> Message:
    """Raise an exception whose text is private."""
    raise ValueError("income of person 17 is 123456")


@app.query("sleep")
def sleep(message: Message, context: Context) -> Message:
    """Be busy for a long time, and say so in the holder's home."""
    (Path(str(context.node_config["home"])) / "busy").touch()
    time.sleep(60)
    return Message(message.content, reply_to=message)


@app.query("pause")
def pause(message: Message, context: Context) -> Message:
    """Answer after four seconds."""
    time.sleep(4)
    return Message(message.content, reply_to=message)
