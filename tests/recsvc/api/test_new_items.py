"""What was put into the catalogue is recommended in the next answer, by its content.

And somebody new is known by what the shop says of them.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from feature_store.registry import ModelRegistry
from tests.recsvc.api.service import N_ITEMS, N_MODEL, ODD_IDS, event, ids_of, running_shop
from tests.recsvc.shop import N_TASTES, TOKENS, add_groups, item_ids, write_artifact
from tests.waiting import until


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service of two workers whose model knows what three categories mean."""
    folder = tmp_path_factory.mktemp("new")
    with running_shop(folder, workers=2, snapshot_poll_s=0.1) as (service, _):
        models = service.shop.data_dir / "models"
        n_rows = N_ITEMS + len(ODD_IDS)
        artifact = write_artifact(models, N_MODEL, tokens=TOKENS, n_rows=n_rows, also=add_groups)
        ModelRegistry(models).publish(artifact.version, datetime.now(UTC))
        with service.client() as client:
            # Both workers: every answer of a row of them comes from the new model.
            until(lambda: all(ask(client)["model_version"] == artifact.version for _ in range(20)))
            for taste in range(N_TASTES):
                for step in (0, 1, 2):
                    bought = item_ids(N_MODEL)[taste + N_TASTES * step]
                    assert client.post("/v1/events", json=event(f"t{taste}", bought)).is_success
            yield client


def ask(client: httpx.Client, **query: Any) -> dict[str, Any]:
    response = client.get("/v1/recommendations", params=query)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def put(client: httpx.Client, item_id: str, **fields: Any) -> None:
    assert client.put(f"/v1/items/{item_id}", json={"title": item_id, **fields}).is_success


def test_a_new_product(client: httpx.Client) -> None:
    put(client, "fresh", categories=["Taste 1"])
    for taste in range(N_TASTES):
        for _ in range(4):
            shown = ids_of(ask(client, user_id=f"t{taste}", limit=20))
            assert ("fresh" in shown) == (taste == 1)
    assert ids_of(ask(client, placement="new", limit=1)) == ["fresh"]
    page = ids_of(ask(client, placement="product", item_ids="fresh", limit=10))
    assert {int(item_id[1:]) % N_TASTES for item_id in page} == {1}


def test_a_new_article(client: httpx.Client) -> None:
    for taste in range(N_TASTES):
        put(client, f"guide-{taste}", kind="content", categories=[f"Taste {taste}"])
    for taste in range(N_TASTES):
        shown = ids_of(ask(client, placement="content", user_id=f"t{taste}"))
        assert len(shown) == N_TASTES
        assert shown[0] == f"guide-{taste}"
    # Who has looked at nothing but an article is known by it.
    view = {**event("reader", "guide-2"), "type": "view"}
    assert client.post("/v1/events", json=view).is_success
    home = ids_of(ask(client, user_id="reader", limit=6))
    assert {int(item_id[1:]) % N_TASTES for item_id in home} == {2}


def test_what_changes_its_category_changes_its_readers(client: httpx.Client) -> None:
    put(client, "mover", categories=["Taste 0"])
    assert "mover" in ids_of(ask(client, user_id="t0", limit=20))
    put(client, "mover", categories=["Taste 2"])
    assert "mover" not in ids_of(ask(client, user_id="t0", limit=20))
    assert "mover" in ids_of(ask(client, user_id="t2", limit=20))


def test_somebody_new_starts_with_the_taste_of_their_like(client: httpx.Client) -> None:
    for age, taste in (("young", 0), ("old", 1)):
        said = {"attributes": {"age": age}}
        assert client.put(f"/v1/users/new-{age}", json=said).is_success
        answer = ask(client, user_id=f"new-{age}", limit=8)
        assert answer["personalized"]
        assert {int(item_id[1:]) % N_TASTES for item_id in ids_of(answer)} == {taste}
        refused = {"user_id": f"new-{age}", "limit": 8, "consent.profiling": "false"}
        stranger = ask(client, user_id="nobody knows", limit=8)
        assert ids_of(ask(client, **refused)) == ids_of(stranger)
        assert not stranger["personalized"]
    # From the first event on it is what they do that counts.
    assert client.post("/v1/events", json=event("new-old", "i00002")).is_success
    shown = ids_of(ask(client, user_id="new-old", limit=6))
    assert {int(item_id[1:]) % N_TASTES for item_id in shown} == {2}
