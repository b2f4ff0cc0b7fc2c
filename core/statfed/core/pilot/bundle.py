"""The app bundle of every run: a manifest that names installed modules, and no code.

Flower wants a bundle with each run and gives it to the nodes. This one is the same bytes everywhere for a protocol,
whatever the package's version, so that a holder can pin its hash and never has to open one.
"""

import hashlib
import io
import zipfile

from statfed.core.pilot import PROTOCOL

CLIENT_APP = "statfed.client.flower.app:app"
SERVER_APP = "statfed.server.grid._coordinator:app"


def bundle() -> bytes:
    """The bundle, a zip archive."""
    manifest = f"""[project]
name = "statfed"
version = "{PROTOCOL}.0.0"
description = "Names installed modules; holds no code"
license = "Apache-2.0"
dependencies = []

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.flwr.app]
publisher = "statfed"

[tool.flwr.app.components]
serverapp = "{SERVER_APP}"
clientapp = "{CLIENT_APP}"

[tool.flwr.app.config]
""".encode()
    content = f"pyproject.toml,{hashlib.sha256(manifest).hexdigest()},{len(manifest) * 8}".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (("pyproject.toml", manifest), (".info/CONTENT", content)):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            archive.writestr(entry, data)
    return buffer.getvalue()


def bundle_digest() -> str:
    """Its SHA-256, in hexadecimal."""
    return hashlib.sha256(bundle()).hexdigest()
