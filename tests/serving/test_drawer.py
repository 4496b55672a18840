from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from consilience.serving.config import ServeConfig
from consilience.serving.service import Service
from consilience.training.settings import leaves, read_settings
from tests.serving.small import bearer, client_of, small_service


@pytest.fixture
def client(service: Service) -> TestClient:
    return client_of(service)[0]


def by_key(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["key"]: one for one in found["settings"]}


def change(client: TestClient, **values: Any) -> Any:
    named = {key.replace("__", "."): value for key, value in values.items()}
    return client.put("/v1/settings", json={"values": named})


def test_every_setting_is_shown_with_its_value(client: TestClient, service: Service) -> None:
    found = client.get("/v1/settings").json()
    assert found["path"] == str(service.path.absolute())
    shown = by_key(found)
    assert list(shown) == [leaf.path for leaf in leaves(ServeConfig)]
    assert shown["limits.k"] == {
        "key": "limits.k",
        "value": 50,
        "default": 50,
        "file": None,
        "flag": False,
        "restart": False,
        "allowed": "a whole number from 1 to 1000",
        "least": 1,
        "most": 1000,
        "help": {"en": "The most passages of a request.", "zh": "一次请求的最多段落数。"},
    }
    assert shown["store"]["value"] == str(service.config.store)
    assert (shown["store"]["restart"], shown["model"]["default"]) == (True, None)


def test_a_change_is_in_the_file_and_holds_at_once(client: TestClient, service: Service) -> None:
    service.path.write_text("port: 9000\nlimits: {k: 9}\n", "utf-8")
    found = change(client, limits__k=3, limits__searches=1, limits__asks=2, host="127.0.0.2")
    assert found.status_code == 200
    shown = by_key(found.json())
    assert (shown["limits.k"]["value"], shown["limits.k"]["file"]) == (3, 3)
    assert (shown["host"]["value"], shown["host"]["file"]) == ("127.0.0.1", "127.0.0.2")
    assert yaml.safe_load(service.path.read_text("utf-8")) == {
        "port": 9000,
        "host": "127.0.0.2",
        "limits": {"k": 3, "searches": 1, "asks": 2},
    }
    assert client.post("/v1/search", json={"question": "a", "k": 4}).status_code == 400
    assert service.gates.gates["searches"].room == 1
    assert (service.desk.limits.concurrent, service.desk.limits.waiting) == (2, 256)
    assert read_settings(ServeConfig, service.path, verb="serve").limits.k == 3


def test_nothing_puts_a_setting_back(client: TestClient, service: Service) -> None:
    service.path.write_text("limits: {k: 9, history: 3}\n", "utf-8")
    assert by_key(change(client, limits__k=None).json())["limits.k"]["file"] is None
    assert yaml.safe_load(service.path.read_text("utf-8")) == {"limits": {"history": 3}}
    assert service.config.limits.k == 50


def test_one_mistake_changes_nothing_and_all_are_told(client: TestClient, service: Service) -> None:
    service.path.write_text("limits: {k: 9}\n", "utf-8")
    found = change(client, limits__k=0, limits__history="many", grace=-1, limits__rate=7)
    assert found.status_code == 400
    message = found.json()["error"]["message"]
    for part in ("3 mistakes", "limits.k is 0", "limits.history is 'many'", "grace is -1"):
        assert part in message
    assert service.path.read_text("utf-8") == "limits: {k: 9}\n"
    assert service.config.limits.rate != 7


@pytest.mark.parametrize(
    "key", ["limits", "colour", "limits.colour", "", "limits.k.x", "__class__"]
)
def test_what_is_no_setting_is_refused(client: TestClient, service: Service, key: str) -> None:
    found = client.put("/v1/settings", json={"values": {key: 1}})
    assert found.status_code == 400
    assert "is no setting" in found.json()["error"]["message"]
    assert not service.path.exists()


def test_a_flag_wins_over_the_file_and_is_told(served: Path, tiny_model_folder: Path) -> None:
    with small_service(served, tiny_model_folder, limits={"k": 7}) as service:
        service.overrides = {"limits.k": "7"}
        client, _ = client_of(service)
        shown = by_key(change(client, limits__k=3).json())["limits.k"]
        assert (shown["value"], shown["file"], shown["flag"]) == (7, 3, True)
        assert service.config.limits.k == 7


def test_from_elsewhere_only_limits_can_be_changed(service: Service) -> None:
    made = service.keys.create("admin", scopes=("admin",))
    client, _ = client_of(service, **bearer(made.secret))
    assert change(client, limits__k=3, grace=1).status_code == 200
    found = change(client, limits__k=4, runs="/", store="/etc")
    assert found.status_code == 403
    assert found.json()["error"]["message"] == (
        "runs, store can be changed on the server's own machine only"
    )
    assert service.config.limits.k == 3


def test_a_file_that_is_no_yaml_is_left_alone(client: TestClient, service: Service) -> None:
    service.path.write_text("a: [", "utf-8")
    found = change(client, limits__k=3)
    assert (found.status_code, found.json()["error"]["kind"]) == (500, "error")
    assert service.path.read_text("utf-8") == "a: ["


def test_a_full_disk_leaves_the_old_file(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.path.write_text("limits: {k: 9}\n", "utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("consilience.serving.files.os.fsync", full)
    found = change(client, limits__k=3)
    assert "No space left on device" in found.json()["error"]["message"]
    assert service.path.read_text("utf-8") == "limits: {k: 9}\n"


def test_keys_are_made_listed_and_revoked(client: TestClient, service: Service) -> None:
    made = client.post("/v1/keys", json={"name": "admin", "scopes": ["admin"]})
    assert made.status_code == 201
    key = made.json()
    secret = key.pop("secret")
    assert key.keys() == {"id", "name", "scopes", "labels", "created", "expires"}
    client.headers = {**client.headers, **bearer(secret)}  # type: ignore[assignment]
    more = client.post(
        "/v1/keys", json={"name": "护士站", "scopes": ["read"], "labels": ["ward"], "days": 2}
    ).json()
    assert (more["labels"], more["name"]) == (["ward"], "护士站")
    listed = client.get("/v1/keys").json()["keys"]
    assert [one["id"] for one in listed] == [key["id"], more["id"]]
    assert "secret" not in str(listed)
    assert "digest" not in str(listed)
    assert client.delete(f"/v1/keys/{more['id']}").json()["name"] == "护士站"
    assert client.delete(f"/v1/keys/{more['id']}").status_code == 404
    assert service.keys.find(more["secret"]) is None


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a"},
        {"name": "a", "scopes": []},
        {"name": "a", "scopes": ["root"]},
        {"name": "a", "scopes": "read"},
        {"name": "", "scopes": ["read"]},
        {"name": "a\x00", "scopes": ["read"]},
        {"name": "a", "scopes": ["read"], "labels": "staff"},
        {"name": "a", "scopes": ["read"], "labels": [""]},
        {"name": "a", "scopes": ["admin"], "labels": ["x"]},
        {"name": "a", "scopes": ["read"], "days": 0},
        {"name": "a", "scopes": ["read"], "days": 1e300},
        {"name": "a", "scopes": ["read"], "id": "mine"},
    ],
)
def test_a_key_that_makes_no_sense_is_refused(
    client: TestClient, service: Service, body: dict[str, Any]
) -> None:
    found = client.post("/v1/keys", json=body)
    assert found.status_code in (400, 422)
    assert not service.keys.in_force
