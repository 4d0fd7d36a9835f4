"""Shoppers as they are: known customers and visitors, who look, put into the cart and buy.

    .venv/bin/locust -f loadtests/locustfile.py --headless -u 50 -r 10 -t 30s

Address, key and customers come from ``.recsvc/demo.json``, or from the file that ``RECSVC_DEMO``
names. Known customers only read; what is written is written for visitors who exist for this run
alone, so that the demo's customers stay who they are.
"""

import os
import random
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from locust import FastHttpUser, between, task

from loadtests.demo import Demo

DEMO = Demo.read(Path(os.environ.get("RECSVC_DEMO", ".recsvc/demo.json")))
HEADERS = {"Authorization": f"Bearer {DEMO.key}"}


class Shopper(FastHttpUser):
    """Somebody on the shop's pages."""

    abstract = True
    host = f"http://{DEMO.address.host}:{DEMO.address.port}"
    wait_time = between(0.5, 2.0)
    connection_timeout = network_timeout = 10.0

    def on_start(self) -> None:
        """Arrive at the start page."""
        self.seen: list[str] = []
        self.cart: list[str] = []
        self.home()

    def who(self) -> dict[str, str]:
        """Return the parameter that says whom the page is for."""
        raise NotImplementedError

    def recommend(self, placement: str, **parameters: Any) -> None:
        """Fill one slot of a page, and remember what was shown."""
        with self.client.get(
            "/v1/recommendations",
            params={"placement": placement, **self.who(), **parameters},
            headers=HEADERS,
            name=f"GET recommendations, {placement}",
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
                return
            answer = response.json()
            if answer["degraded"]:
                response.failure(f"degraded: {answer['degraded']}")
            elif not answer["items"]:
                response.failure("empty")
            else:
                self.seen = [item["item_id"] for item in answer["items"]]

    @task(10)
    def home(self) -> None:
        """Look at the start page."""
        self.recommend("home")

    @task(6)
    def look_at_a_product(self) -> None:
        """Open the page of something that was shown."""
        if self.seen:
            item_id = random.choice(self.seen)
            self.recommend("product", item_ids=item_id)
            self.recommend("together", item_ids=item_id)

    @task(2)
    def look_at_the_cart(self) -> None:
        """Open the cart."""
        if self.cart:
            self.recommend("cart", item_ids=self.cart)

    @task(1)
    def look_at_what_is_due(self) -> None:
        """Open the page of what may have run out."""
        self.recommend("buy_again")

    @task(1)
    def look_at_trends(self) -> None:
        """Open the page of what sells well now."""
        self.recommend("trending")


class Customer(Shopper):
    """Somebody with a history, who only reads."""

    weight = 7

    def on_start(self) -> None:
        """Sign in."""
        self.user_id = random.choice(DEMO.user_ids)
        super().on_start()

    def who(self) -> dict[str, str]:
        """Name the customer."""
        return {"user_id": self.user_id}


class Visitor(Shopper):
    """Somebody nobody knows yet, whose first clicks count at once."""

    weight = 3

    def on_start(self) -> None:
        """Arrive without a name."""
        self.anonymous_id = f"load-{uuid.uuid4()}"
        super().on_start()

    def who(self) -> dict[str, str]:
        """Name the visitor."""
        return {"anonymous_id": self.anonymous_id}

    def happened(self, kind: str, item_ids: list[str]) -> None:
        """Report an event for each item."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        events = [
            {
                "event_id": str(uuid.uuid4()),
                "type": kind,
                "anonymous_id": self.anonymous_id,
                "item_id": item_id,
                "timestamp": now,
            }
            for item_id in item_ids
        ]
        self.client.post("/v1/events", json=events, headers=HEADERS, name=f"POST events, {kind}")

    @task(6)
    def view(self) -> None:
        """Look closely at something."""
        if self.seen:
            item_id = random.choice(self.seen)
            self.happened("view", [item_id])
            self.recommend("product", item_ids=item_id)

    @task(3)
    def add_to_cart(self) -> None:
        """Put something into the cart."""
        if self.seen:
            self.cart = [*self.cart[-9:], random.choice(self.seen)]
            self.happened("add_to_cart", self.cart[-1:])
            self.recommend("cart", item_ids=self.cart)

    @task(1)
    def buy(self) -> None:
        """Buy the cart, and go on."""
        if self.cart:
            self.happened("purchase", self.cart)
            self.cart = []
            self.recommend("home")
