"""What the demo shows once it serves: how to ask, and one customer's list by product name."""

import hmac
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Self

import orjson
import polars as pl

from feature_store.catalogue_files import CatalogueFiles
from feature_store.errors import RecsvcError
from feature_store.event_log import EventLog
from feature_store.key_store import KeyRecord
from feature_store.registry import ModelRegistry
from feature_store.store import Store
from recsvc.access.auth import digest_of, load_secret
from recsvc.commands.api_keys import make_key, store_record
from recsvc.commands.output import say, stdout, table
from recsvc.commands.session import with_store
from recsvc.settings import Settings

N_EXAMPLES = 20
N_SHOWN = 10
_TIMEOUT_S = 30.0


class Greeting:
    """Prepares what a newcomer sees; `show` is called when the service answers.

    ``demo.json`` is there as long as the context is open and the service answers, and no longer.

    Parameters
    ----------
    settings : Settings
        Of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.data_dir / "demo.json"
        self._path.unlink(missing_ok=True)
        self._key = self._kept_key("demo.key", ["all"], ())
        self._user_ids = example_users(EventLog(settings.data_dir))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)

    def _kept_key(self, file: str, scopes: list[str], origins: tuple[str, ...]) -> str:
        """Return the key of the last time if it is still good, else a new one."""
        kept = self._settings.data_dir / file
        known = kept.read_text().strip() if kept.exists() else ""
        record = self._good_record(known) if known else None
        if record is not None:
            if record.origins != origins:  # another port than the last time
                moved = record.model_copy(update={"origins": origins})
                store_record(self._settings, moved)
            return known
        name = "demo page" if origins else "demo admin"
        key = make_key(self._settings, name, scopes, public=bool(origins), origins=origins)[0]
        kept.touch(mode=0o600)
        kept.write_text(key + "\n")
        return key

    def _good_record(self, key: str) -> KeyRecord | None:
        digest = digest_of(load_secret(self._settings), key.encode()).hex()

        async def found(store: Store) -> KeyRecord | None:
            for record in await store.keys.all():
                if hmac.compare_digest(record.digest, digest) and record.revoked_at is None:
                    return record
            return None

        return with_store(self._settings, found)

    def show(self, base_url: str) -> None:
        """Write ``demo.json`` and say how to go on."""
        port = urllib.parse.urlsplit(base_url).port
        pages = tuple(f"http://{host}:{port}" for host in ("127.0.0.1", "localhost"))
        document = {
            "base_url": base_url,
            "keys": {"admin": self._key, "public": self._kept_key("demo.public.key", [], pages)},
            "user_ids": self._user_ids,
            "model_version": ModelRegistry(self._settings.models_dir).current(),
        }
        # Nobody else may read the key, at no moment.
        hidden = self._path.with_name(".demo.json.partial")
        hidden.touch(mode=0o600)
        hidden.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
        hidden.replace(self._path)
        if self._user_ids:
            self._show_customer(base_url, self._user_ids[0])
        self._show_commands(base_url)

    def _show_customer(self, base_url: str, user_id: str) -> None:
        answer = self._ask(base_url, user_id)
        bought = favourites(self._settings, user_id)
        shown = table("bought most often", "times>", "recommended now", "because")
        items = answer["items"]
        for place in range(max(len(bought), len(items))):
            name, times = bought[place] if place < len(bought) else ("", "")
            item = items[place] if place < len(items) else None
            reason = (item or {}).get("reason") or {}
            shown.add_row(
                name,
                times,
                _title(item) if item else "",
                str(reason.get("text") or reason.get("code") or ""),
            )
        say(f"\nCustomer {user_id}, asked over HTTP just now:")
        stdout().print(shown)

    def _ask(self, base_url: str, user_id: str) -> dict[str, Any]:
        query = urllib.parse.urlencode(
            {
                "placement": "home",
                "user_id": user_id,
                "limit": N_SHOWN,
                "explain": "true",
                "fields": "title",
            }
        )
        request = urllib.request.Request(  # noqa: S310 - our own service
            f"{base_url}/v1/recommendations?{query}",
            headers={"Authorization": f"Bearer {self._key}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
                answer: dict[str, Any] = orjson.loads(response.read())
        except (urllib.error.URLError, OSError, orjson.JSONDecodeError) as error:
            raise RecsvcError(f"the service does not answer as it should: {error}") from error
        return answer

    def _show_commands(self, base_url: str) -> None:
        user_id = self._user_ids[0] if self._user_ids else "somebody"
        item_id = _an_item(self._settings)
        say(f"\nTry it (the key and more customers are in {self._path}):\n")
        say(f"  KEY={self._key}")
        say(
            f'  curl -H "Authorization: Bearer $KEY" \'{base_url}/v1/recommendations'
            f"?user_id={user_id}&limit=5&fields=title'"
        )
        for placement in ("product", "together"):
            say(
                f'  curl -H "Authorization: Bearer $KEY" \'{base_url}/v1/recommendations'
                f"?placement={placement}&item_ids={item_id}&limit=5&fields=title'"
            )
        say(
            f'  curl -H "Authorization: Bearer $KEY" {base_url}/v1/events '
            "-H 'Content-Type: application/json' \\\n    -d "
            f'"{{\\"event_id\\":\\"$RANDOM\\",\\"type\\":\\"purchase\\",\\"user_id\\":\\"{user_id}\\",'
            f'\\"item_id\\":\\"{item_id}\\",\\"timestamp\\":\\"$(date -u +%FT%TZ)\\"}}"'
        )
        say(f"\n{base_url}/docs describes every route. Ctrl-C stops everything.")


def example_users(log: EventLog) -> list[str]:
    """Return customers with histories between the lower quartile and the ninth decile."""
    sizes = (
        log.scan()
        .filter(pl.col("user_id").is_not_null(), pl.col("type") == "purchase")
        .group_by("user_id")
        .agg(pl.col("item_id").n_unique().alias("n"))
        .collect()
        .sort("n", "user_id")
    )
    if len(sizes) <= N_EXAMPLES:
        return sizes["user_id"].to_list()[::-1]
    first, last = len(sizes) // 4, len(sizes) * 9 // 10
    step = (last - first) / N_EXAMPLES
    chosen = [sizes["user_id"][first + int(step * place)] for place in range(N_EXAMPLES)]
    # Somebody in the middle comes first: that is who is shown.
    middle = N_EXAMPLES // 2
    return chosen[middle:] + chosen[:middle]


def favourites(settings: Settings, user_id: str) -> list[tuple[str, str]]:
    """Return the names of what a customer bought most often, and how often."""
    counts = (
        EventLog(settings.data_dir)
        .scan()
        .filter(pl.col("user_id") == user_id, pl.col("type") == "purchase")
        .group_by("item_id")
        .len("n")
        .sort("n", "item_id", descending=[True, False])
        .head(N_SHOWN)
        .collect()
    )
    catalogue = CatalogueFiles(settings.catalogue_dir).load(verify=False).catalogue
    found = []
    for item_id, count in counts.iter_rows():
        row = catalogue.row(item_id)
        title = catalogue.item(row)["title"] if row is not None else None
        found.append((title or item_id, str(count)))
    return found


def _title(item: dict[str, Any]) -> str:
    return str((item.get("item") or {}).get("title") or item["item_id"])


def _an_item(settings: Settings) -> str:
    """Return the item that was bought most often."""
    top = (
        EventLog(settings.data_dir)
        .scan()
        .filter(pl.col("type") == "purchase")
        .group_by("item_id")
        .len("n")
        .sort("n", "item_id", descending=[True, False])
        .head(1)
        .collect()
    )
    return str(top["item_id"][0]) if len(top) else "something"
