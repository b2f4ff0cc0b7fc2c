"""Files for whoever runs a role of a pilot: a systemd unit, a Containerfile and a compose file.

They name commands and paths of this installation and nothing to be fetched: the image is built from a folder of wheels.
The process may write to its own folder alone, has no privileges, leaves no core file with data in it, and is started
again when it failed, not when its usage or folder was wrong (exit codes 2 and 3).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from statfed.core.errors import UsageError
from statfed.core.process import OFFLINE

INSIDE = "/opt/statfed/bin/statfed"
NOBODY = 10001
"""Who runs a container unless somebody is named."""

_UNIT = """\
# {what}. As root: put this file into /etc/systemd/system, then
#     systemctl daemon-reload && systemctl enable --now {name}
# The folder has to belong to the user that is named here.
[Unit]
Description={what}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=600
StartLimitBurst=20

[Service]
Type=exec
User={user}
ExecStart={command}
WorkingDirectory={folder}
{environment}
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2 3
KillMode=mixed
TimeoutStopSec=30
LimitCORE=0
LimitNOFILE=65536
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={writes}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""

_CONTAINERFILE = """\
# {what}. What is installed comes from the folder `wheels` beside this file alone.
# Fill it where packages can be fetched, for the Python of the base image, then build:
#     pip wheel --wheel-dir wheels statfed=={version}
#     podman build --tag {image} .
ARG BASE=python:3.12-slim
FROM ${{BASE}} AS built
COPY wheels /wheels
RUN python -m venv /opt/statfed \\
 && /opt/statfed/bin/pip install --no-cache-dir --no-index --find-links=/wheels statfed=={version}

FROM ${{BASE}}
COPY --from=built /opt/statfed /opt/statfed
ENV HOME=/tmp \\
    USER=statfed \\
    PYTHONDONTWRITEBYTECODE=1 \\
    {environment}
USER {nobody}:{nobody}
WORKDIR {inside}
ENTRYPOINT ["{program}"]
CMD {command}
"""


@dataclass(frozen=True)
class Service:
    """One role of a pilot on one machine.

    name: the pilot's, or the party's; folder: its own, absolute, the one it writes to; program: `statfed`, absolute;
    owner: name, user and group number of whom it runs as, never root; options: of the start command, beside the
    folder's; port: that it listens on, if it does; reads: what else a container has to see, read-only.
    """

    role: Literal["coordinator", "holder"]
    name: str
    folder: Path
    program: Path
    version: str
    owner: tuple[str, int, int]
    options: tuple[str, ...] = ()
    port: int | None = None
    reads: tuple[Path, ...] = ()

    @property
    def unit(self) -> str:
        """The unit's name."""
        return f"statfed-{self.role}-{self.name}"

    @property
    def what(self) -> str:
        """It in words."""
        return f"statfed: the hub of pilot {self.name}" if self.role == "coordinator" else f"statfed: party {self.name}"

    def command(self, folder: str) -> tuple[str, ...]:
        """The words behind `statfed` that start it."""
        return self.role, "start", "--pilot" if self.role == "coordinator" else "--home", folder, *self.options

    def health(self, folder: str) -> tuple[str, ...]:
        """The words behind `statfed` that fail when it is not well."""
        if self.role == "coordinator":
            return "coordinator", "status", "--pilot", folder
        return "doctor", "--home", folder, *self.options


def files(service: Service) -> dict[str, str]:
    """All files of a service, by name. Raises UsageError where a path has characters that none of them can hold."""
    for path in (service.folder, service.program, *service.reads):
        if not path.is_absolute() or not str(path).isprintable():
            raise UsageError(f"path: got {str(path)!r}; want an absolute one of printable characters")
    return {
        f"{service.unit}.service": unit(service),
        "Containerfile": containerfile(service),
        "compose.yaml": compose(service),
    }


def unit(service: Service) -> str:
    """The systemd unit."""
    folder, bound = str(service.folder), service.port is not None and service.port < 1024
    return _UNIT.format(
        what=service.what,
        name=service.unit,
        user=service.owner[0],
        command=" ".join(map(quoted, (str(service.program), *service.command(folder)))),
        folder=folder.replace("%", "%%"),
        environment="\n".join(f'Environment="{name}={value}"' for name, value in OFFLINE.items()),
        capabilities="CAP_NET_BIND_SERVICE" if bound else "",
        writes=quoted(folder).replace("$$", "$"),
    )


def quoted(word: str) -> str:
    """A word as systemd reads it in a command line (systemd.service(5), systemd.syntax(7)).

    >>> print(quoted("/srv/a trade/100%"), quoted("$HOME"))
    "/srv/a trade/100%%" "$$HOME"
    """
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(plain, escaped)
    return f'"{word}"'


def containerfile(service: Service) -> str:
    """How an image of the role is built."""
    return _CONTAINERFILE.format(
        what=service.what,
        image=_image(service),
        version=service.version,
        environment=" \\\n    ".join(f"{name}={value}" for name, value in OFFLINE.items()),
        nobody=NOBODY,
        inside=_inside(service),
        program=INSIDE,
        command=json.dumps(service.command(_inside(service))),
    )


def compose(service: Service) -> str:
    """One service of compose (compose-spec). JSON quotes its strings as YAML does."""
    user, group = service.owner[1:]
    inside = _inside(service)
    lines = [
        f"# {service.what}. The folder has to belong to user {user}, who runs it.",
        "services:",
        f"  {service.unit}:",
        "    build: .",
        f"    image: {_image(service)}",
        f"    command: {_listed(service.command(inside))}",
        f'    user: "{user}:{group}"',
        "    init: true",
        "    read_only: true",
        "    tmpfs: [/tmp]",
        "    cap_drop: [ALL]",
        '    security_opt: ["no-new-privileges:true"]',
        "    restart: on-failure",
        "    stop_grace_period: 30s",
        "    ulimits: {core: 0, nofile: 65536}",
        "    volumes:",
        f"      - {{type: bind, source: {_one(str(service.folder))}, target: {inside}}}",
        *(
            f"      - {{type: bind, source: {_one(str(path))}, target: {_one(str(path))}, read_only: true}}"
            for path in service.reads
        ),
        *([f'    ports: ["{service.port}:{service.port}"]'] if service.port else []),
        *(["    sysctls: {net.ipv4.ip_unprivileged_port_start: 0}"] if (service.port or 1024) < 1024 else []),
        "    healthcheck:",
        f"      test: {_listed(('CMD', INSIDE, *service.health(inside)))}",
        "      interval: 60s",
        "      timeout: 45s",
        "      start_period: 120s",
        "      retries: 3",
    ]
    return "\n".join(lines) + "\n"


def _inside(service: Service) -> str:
    return "/pilot" if service.role == "coordinator" else "/party"


def _image(service: Service) -> str:
    return f"statfed-{service.role}:{service.version}"


def _one(word: str) -> str:
    """A word in YAML, in which compose would replace what begins with a dollar."""
    return json.dumps(word.replace("$", "$$"))


def _listed(words: Sequence[str]) -> str:
    return "[" + ", ".join(map(_one, words)) + "]"
