"""A party's halves of protected averages: what they refuse, and the process that keeps them between messages."""

import json
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import (
    FedAvg,
)
from numpy.typing import NDArray

from statfed.client.flower import party as flower_party
from statfed.client.flower.mod import protect
from statfed.client.third_party import load_party
from statfed.core.averaging import Said, make_facts
from statfed.core.errors import EngineError, Refused, StatfedError, UsageError
from tests.flower_app import NAMES, by_home, client, federate, make_homes, with_toys


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toy protections beside the real ones."""
    with_toys(monkeypatch)


@pytest.fixture
def homes(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Make homes of parties that have pinned each other."""
    return partial(make_homes, tmp_path)


def facts(**changes: Any) -> Any:
    base: dict[str, Any] = {"run": 1, "session": 1, "protection": "toy", "holders": NAMES[:3], "minimum_holders": 3}
    base |= {"parties": dict.fromkeys(NAMES[:3], "t"), "arrays": {"w": (3,)}, "limit": 1.0, "most_examples": 10}
    return make_facts(**base | changes)


def test_replayed_sums_earlier_sessions_and_foreign_runs_are_refused(homes: Any) -> None:
    home, seats = Path(homes()["north"]), flower_party.Seats()

    def ask(step: Any, number: int = 0, **changes: Any) -> Any:
        said = Said(step=step, stage="greet", number=number, facts=facts(**{"parties": tokens} | changes))
        return seats.ask(home, 1, 7, said, {"for": b"north", "request": bytes(32)}, arrays)

    arrays: dict[str, NDArray[Any]] = {"weight": np.asarray(1), "array/w": np.zeros(3)}
    hello = seats.ask(home, 1, 7, Said(step="hello"), {}, {})
    tokens = {"east": "a", "south": "b", "north": re.findall(r"[0-9a-f]{32}", str(hello))[0]}
    ask("contribute", 1, session=2)
    with pytest.raises(Refused, match="each sum is formed once"):
        ask("contribute", 1, session=2)
    with pytest.raises(Refused, match="session: got 1"):
        ask("contribute", 2)
    with pytest.raises(Refused, match="another run"):
        ask("contribute", 2, run=2)
    with pytest.raises(EngineError, match="as it runs now"):
        ask("contribute", 2, session=3, parties=dict.fromkeys(NAMES[:3], "t"))
    for changed in ({"limit": 0.5}, {"most_examples": 9}, {"train_metrics": {"loss": 0.5}}):  # a bit a session
        with pytest.raises(Refused, match="nobody can bisect"):
            ask("contribute", 2, session=3, **changed)
    with pytest.raises(UsageError, match="want at least 2"):
        ask("contribute", 2, session=3, holders=("north",), parties={"north": tokens["north"]}, minimum_holders=1)


def test_a_party_file_that_was_changed_holds_from_the_next_message_on(homes: Any) -> None:
    home, seats = Path(homes()["north"]), flower_party.Seats()
    hello = seats.ask(home, 1, 7, Said(step="hello"), {}, {})
    tokens = {"east": "a", "south": "b", "north": re.findall(r"[0-9a-f]{32}", str(hello))[0]}
    said = Said(step="admit", number=1, facts=facts(parties=tokens))
    assert seats.ask(home, 1, 7, said, {}, {}) == {}
    text = (home / "party.toml").read_text().replace("minimum_holders = 1", "minimum_holders = 4")
    (home / "party.toml").write_text(text)
    with pytest.raises(Refused, match="got sums over as few as 3; want at least 4"):
        seats.ask(home, 1, 7, said, {}, {})


def test_a_pinned_party_is_no_key_holder_unless_the_party_file_says_so(homes: Any) -> None:
    made = homes(NAMES[:4], allow="homomorphic-encryption")
    home, seats = Path(made["north"]), flower_party.Seats()
    hello = seats.ask(home, 1, 7, Said(step="hello"), {}, {})
    tokens = dict.fromkeys(NAMES[:4], "t") | {"north": re.findall(r"[0-9a-f]{32}", str(hello))[0]}
    agreed = facts(protection="homomorphic-encryption", options={"key_holder": NAMES[3]}, parties=tokens)
    with pytest.raises(Refused, match=f"third parties: got {NAMES[3]}, not allowed; want none"):
        seats.ask(home, 1, 7, Said(step="admit", number=1, facts=agreed), {}, {})
    text = (home / "party.toml").read_text().replace("[parties]", f'third_parties = ["{NAMES[3]}"]\n[parties]')
    (home / "party.toml").write_text(text)
    assert seats.ask(home, 1, 7, Said(step="admit", number=1, facts=agreed), {}, {}) == {}


def a_process_for_each_message() -> ClientApp:
    """What Flower does by default: each message meets an app that was just loaded."""

    class Forgetful(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            return client(protect(by_home))(message, context)

    return Forgetful()


def test_a_process_that_forgets_is_told_so_and_sends_nothing(homes: Any) -> None:
    with pytest.raises(EngineError, match="secrets of a protected sum live in memory"):
        federate(homes(), FedAvg(), app=a_process_for_each_message())


@pytest.fixture
def served(homes: Any) -> dict[str, str]:
    """Homes with a process (here: a thread) that keeps each party between messages."""
    places: dict[str, str] = homes()
    for home in places.values():
        ready = threading.Event()
        threading.Thread(target=flower_party.serve, args=(Path(home), ready.set), daemon=True).start()
        assert ready.wait(10)
    return places


def test_a_party_process_keeps_the_secrets_between_messages(served: dict[str, str], homes: Any) -> None:
    expected, _ = federate(homes(("east", "north", "south")), FedAvg())
    got, _ = federate(served, FedAvg(), app=a_process_for_each_message())
    np.testing.assert_allclose(got.arrays["w"].numpy(), expected.arrays["w"].numpy(), atol=1e-12)
    home = Path(served["north"])
    assert (home / "party.sock").stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="another process answers"):
        flower_party.serve(home)
    with pytest.raises(Refused, match="protection: got plain; want toy"):
        federate(homes(allow="toy"), FedAvg(), "plain", app=a_process_for_each_message())


def test_a_coordinators_packet_cannot_speak_for_the_app_to_its_party_process(served: dict[str, str]) -> None:
    forged = json.dumps({"said": Said(step="hello").model_dump_json(), "run": 1, "node": 7}).encode()
    said = Said(step="admit", number=1, facts=facts())
    with pytest.raises(EngineError, match="knows nothing of the run's earlier messages"):
        flower_party.remote(Path(served["north"]), 1, 7, said, {flower_party.ANSWER: forged}, {})


def test_a_socket_where_nobody_answers_is_an_error(homes: Any) -> None:
    places = homes()
    (Path(places["east"]) / "party.sock").touch()
    with pytest.raises(EngineError, match=r"nobody answers at this home's party\.sock"):
        federate(places, FedAvg())


def test_home_folders_are_made_by_the_command(tmp_path: Path) -> None:
    key = flower_party.create(tmp_path / "north", "north")
    assert flower_party.create(tmp_path / "north", "north") == key
    policy = load_party(tmp_path / "north" / "party.toml")
    assert (policy.party.name, policy.allow.protections) == ("north", ("secure-aggregation",))
    with pytest.raises(StatfedError):
        flower_party.create(tmp_path / "bad", "No Name")
