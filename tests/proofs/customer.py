"""One customer of the proof: does one thing after the other, and compares what comes back."""

import random
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import orjson

from feature_store import keys
from feature_store.schema import format_time
from tests.proofs.outcome import Shop
from tests.proofs.word_of import BRANDS, ITEMS, OF_HISTORY, PATHS, PURPOSES, Word, named_in

PEOPLE_EACH = 5
PLACEMENTS = ("home", "product", "together", "cart", "buy_again", "trending", "new", "email")
PAGES = ("home", "product", "cart", "me")
KINDS = ("view", "purchase", "click", "add_to_cart", "like")


class Customer:
    """Somebody with several people of their own.

    Parameters
    ----------
    shop : Shop
        Where.
    number : int
        Which of the customers.
    run : str
        A name that no other run has.
    """

    def __init__(self, shop: Shop, number: int, run: str) -> None:
        self.shop, self.outcome = shop, shop.outcome
        self._rng = random.Random(f"{run} {number}")
        self._name, self._made = f"{run}-{number:03d}", 0
        self._tokens: dict[str, tuple[str, float]] = {}
        self.people = [self._somebody(is_user=at < 3) for at in range(PEOPLE_EACH)]
        self._actions: list[tuple[Callable[[Word], Awaitable[None]], int]] = [
            (self.look, 38), (self.turn_pages, 5), (self.act, 16), (self.hide, 14),
            (self.snooze, 4), (self.follow, 5), (self.switch, 4), (self.say, 5),
            (self.say_along, 6), (self.read, 5), (self.compare, 6), (self.forget, 2),
            (self.sign_in, 2), (self.leave, 1),
        ]  # fmt: skip

    def _somebody(self, *, is_user: bool) -> Word:
        self._made += 1
        return Word(f"{self._name}-somebody-{self._made:010d}", is_user, self.shop.opt_in)

    async def step(self) -> None:
        """Do one thing, and compare what comes back."""
        actions, weights = zip(*self._actions, strict=True)
        (action,) = self._rng.choices(actions, weights)
        await action(self._rng.choice(self.people))
        self.outcome.steps += 1
        self.outcome.actions[action.__name__] += 1

    async def _ask(self, method: str, target: str, body: Any = None, **headers: str) -> Any:
        headers = {"Authorization": f"Bearer {self.shop.key}", **headers}
        status, found = await self.shop.wire.ask(method, target, body, **headers)
        assert 200 <= status < 300, (method, target, body, status, found)
        return found

    # --- looking --------------------------------------------------------------------------------

    def _question(self) -> dict[str, Any]:
        rng = self._rng
        asked: dict[str, Any] = {
            "placement": rng.choice(PLACEMENTS),
            "limit": rng.choice([5, 20, 100]),
        }
        if asked["placement"] in ("product", "together", "cart") or rng.random() < 0.1:
            asked["item_ids"] = rng.sample(ITEMS, rng.randint(1, 3))
        if rng.random() < 0.15:
            asked["filter"] = {"field": "item.brand", "op": "in", "value": rng.sample(BRANDS, 2)}
        if rng.random() < 0.15:
            asked["exclude_item_ids"] = rng.sample(ITEMS, 5)
        return asked

    async def _answer(self, whose: Word, asked: dict[str, Any], **headers: str) -> Any:
        """Ask for a list by either door, and hold it against somebody's word."""
        recalled = self.shop.marketers.recalled
        if self._rng.random() < 0.5 or "consent" in asked:
            found = await self._ask("POST", "/v1/recommendations", asked, **headers)
        else:
            written = {
                name: orjson.dumps(one).decode() for name, one in asked.items() if name == "filter"
            }
            query = urlencode({**asked, **written}, doseq=True)
            found = await self._ask("GET", f"/v1/recommendations?{query}", **headers)
        self._hold(whose, [found], recalled, asked)
        return found

    def _hold(self, whose: Word, lists: Iterable[Any], recalled: set[str], asked: Any) -> None:
        """Compare finished lists with somebody's word; `recalled` is as it was when asked."""
        now_s, recalled = time.time(), recalled & self.shop.marketers.recalled
        told = f"{whose.person} asked {asked}"
        for found in lists:
            if found["degraded"]:
                self.outcome.wrong("degraded", f"{told}: {found['degraded']}")
            for item, named in named_in(found["items"], asked.get("item_ids", ())):
                if why := whose.why_hidden(named, now_s):
                    self.outcome.wrong(f"{why}, and shown", f"{told}: {item}")
                if item["item_id"] in recalled:
                    self.outcome.wrong("recalled, and shown", f"{told}: {item}")
            codes = {item["reason"]["code"] for item in found["items"]}
            if not whose.allows:
                if found["personalized"] or codes & OF_HISTORY:
                    self.outcome.wrong("personal without consent", f"{told}: {codes}")
            elif whose.has_history and not found["personalized"]:
                self.outcome.wrong("acknowledged, and not seen", f"{told}: not personal")

    async def look(self, whose: Word) -> None:
        """Look at a list; some browsers object, and with a token for good."""
        asked, chance = self._question(), self._rng.random()
        if chance > 0.06 or not whose.is_user:
            await self._answer(whose, {**asked, **whose.who})
            return
        before = whose.allows
        whose.says("profiling", False, "gpc")
        objection = {"Sec_GPC": "1", "Authorization": self._token(whose)}
        await self._answer(whose, asked, **objection)
        await self._freeze(whose, before)

    async def turn_pages(self, whose: Word) -> None:
        """Look at a page."""
        recalled, page = self.shop.marketers.recalled, self._rng.choice(PAGES)
        asked: dict[str, Any] = dict(whose.who)
        if page in ("product", "cart"):
            asked["item_ids"] = self._rng.sample(ITEMS, 2)
        found = await self._ask("GET", f"/v1/pages/{page}?{urlencode(asked, doseq=True)}")
        self._hold(whose, found["modules"], recalled, {"page": page, **asked})
        shown = [item["item_id"] for one in found["modules"] for item in one["items"]]
        if len(set(shown)) < len(shown):
            self.outcome.wrong("twice on a page", f"{page}: {shown}")

    async def compare(self, whose: Word) -> None:
        """Without consent: ask what a stranger who hides the same asks."""
        if whose.allows:
            await self.look(whose)
            return
        stranger = self._somebody(is_user=True)
        lasting = {
            one: until for one, until in whose.snoozed.items() if until[0] > time.time() + 30
        }
        same: dict[str, Any] = {
            "hidden_items": sorted(whose.hidden_items),
            "hidden_brands": sorted(whose.hidden_brands),
            "hidden_categories": sorted(whose.hidden_categories),
            "snoozed": [{"item_id": one, "until": until} for one, (_, until) in lasting.items()],
        }
        await self._ask("PATCH", f"/v1/users/{stranger.name}/preferences", same)
        asked = self._question()
        for attempt in range(3):
            epoch, began_s = self.shop.marketers.epoch, time.time()
            lists = []
            for one in (whose, stranger):
                found = await self._answer(one, {**asked, **one.who})
                lists.append([item["item_id"] for item in found["items"]])
            # While marketers publish, or a snooze ends, the two may see different shops.
            ends = any(began_s - 2 < at_s < time.time() + 31 for at_s, _ in whose.snoozed.values())
            calm = epoch % 2 == 0 and epoch == self.shop.marketers.epoch and not ends
            if lists[0] == lists[1] or not calm:
                return
            if attempt == 2:
                self.outcome.wrong("not what a stranger sees", f"{whose.person} {asked}: {lists}")

    # --- doing ----------------------------------------------------------------------------------

    def _events(self, whose: Word, n: int) -> list[dict[str, Any]]:
        now = format_time(datetime.now(UTC))
        found = []
        for _ in range(n):
            self._made += 1
            kind, item_id = self._rng.choice(KINDS), self._rng.choice(ITEMS)
            event_id = f"{self._name}-event-{self._made}"
            one = {"event_id": event_id, "type": kind, "item_id": item_id, "timestamp": now}
            found.append({**one, **whose.who})
        return found

    async def _send(self, whose: Word, events: list[dict[str, Any]]) -> None:
        """Send events; what somebody allows says whether they are kept."""
        found = await self._ask("POST", "/v1/events", events)
        n, ids = len(events), {one["event_id"] for one in events}
        if whose.allows:
            whose.kept.update(one["type"] for one in events)
            self.shop.kept_ids |= ids
            self.outcome.events_kept += n
            right = found["accepted"] + found["duplicates"] == n
        else:
            self.shop.withheld_ids |= ids
            self.outcome.events_withheld += n
            right = found["withheld"] == n
        if not right:
            self.outcome.wrong("events kept or withheld", f"{whose.person}: {found} of {events}")

    async def act(self, whose: Word) -> None:
        """Buy, view, like; the very next answer knows."""
        await self._send(whose, self._events(whose, self._rng.randint(1, 3)))
        if self._rng.random() < 0.5:
            await self.look(whose)

    async def forget(self, whose: Word) -> None:
        """Have the taste forgotten; the choices stay."""
        await self._audit(whose)
        if whose.is_user:
            await self._ask("POST", f"/v1/users/{whose.name}/preferences/reset")
        else:
            key = {"Authorization": f"Bearer {self.shop.public_key}"}
            target = f"/v1/me/preferences/reset?{urlencode(whose.who)}"
            await self._ask("POST", target, **key)
        whose.kept.clear()
        await self._freeze(whose, before=True)
        await self.read(whose)

    async def sign_in(self, _: Word) -> None:
        """A visitor turns out to be a user: the stricter of both holds."""
        visitor = self._rng.choice([one for one in self.people if not one.is_user])
        user = self._rng.choice([one for one in self.people if one.is_user])
        await self._audit(user)
        await self._audit(visitor)
        await self._ask("POST", f"/v1/users/{user.name}/merge", visitor.who)
        user.joined_by(visitor)
        self.people[self.people.index(visitor)] = self._somebody(is_user=False)
        user.frozen = None  # the visitor's history is theirs now
        await self._freeze(user, before=True)
        await self.read(user)
        await self.look(user)

    async def leave(self, whose: Word) -> None:
        """Somebody is not seen again; another one comes."""
        await self.read(whose)
        self.people[self.people.index(whose)] = self._somebody(is_user=whose.is_user)

    # --- saying ---------------------------------------------------------------------------------

    def _token(self, whose: Word) -> str:
        token, until_s = self._tokens.get(whose.name, ("", 0.0))
        if until_s < time.time():
            token = self.shop.backend.token(whose.name)
            self._tokens[whose.name] = token, time.time() + 300
        return f"Bearer {token}"

    async def _patch(
        self, whose: Word, patch: dict[str, Any], then: Callable[[str], object]
    ) -> None:
        """Change preferences by one of the doors; `then` notes it, told how a consent names it."""
        target, source = f"/v1/me/preferences?{urlencode(whose.who)}", "visitor"
        headers = {"Authorization": f"Bearer {self.shop.public_key}"}
        if whose.is_user and self._rng.random() < 0.5:
            target, headers, source = f"/v1/users/{whose.name}/preferences", {}, "key:all"
        elif whose.is_user:
            headers, source = {"Authorization": self._token(whose)}, "customer"
            target = "/v1/me/preferences"
        before, began_s = whose.allows, time.time()
        found = await self._ask("PATCH", target, patch, **headers)
        then(source)
        whose.hide_ends_following()
        if wrong := whose.wrong_in(found, began_s):
            self.outcome.wrong("answered otherwise", f"{whose.person} {patch}: {wrong} {found}")
        await self._freeze(whose, before)
        if self._rng.random() < 0.5:
            await self.look(whose)

    async def hide(self, whose: Word) -> None:
        """Hide something, or show it again."""
        kind, known = self._rng.choice(
            [("items", ITEMS), ("items", ITEMS), ("brands", BRANDS), ("categories", PATHS)]
        )
        hidden: set[str] = getattr(whose, f"hidden_{kind}")
        chosen = self._rng.sample(known, self._rng.randint(1, min(3, len(known))))
        back = self._rng.sample(sorted(hidden), self._rng.randint(0, min(3, len(hidden))))
        if len(hidden) > len(known) // 2:
            chosen, back = chosen[:1], sorted(hidden)
        back = [one for one in back if one not in chosen]
        if kind == "items":
            self.shop.marketers.wanted.extend(chosen)
        new = (hidden - set(back)) | set(chosen)
        changes = {"add": chosen, "remove": back}
        patch = {f"hidden_{kind}": changes if self._rng.random() < 0.7 else sorted(new)}
        await self._patch(whose, patch, lambda _: setattr(whose, f"hidden_{kind}", new))

    async def snooze(self, whose: Word) -> None:
        """Hide an item for a while; some of them end soon."""
        item_id = self._rng.choice(ITEMS)
        ends = datetime.now(UTC) + timedelta(seconds=self._rng.choice([10.0, 20.0, 3600.0]))
        # A whole number of milliseconds: what is less is not stored, and a time has one spelling.
        until = format_time(ends.replace(microsecond=ends.microsecond // 1000 * 1000))
        until_s = datetime.fromisoformat(until).timestamp()
        patch = {"snoozed": {"add": [{"item_id": item_id, "until": until}]}}
        self.shop.marketers.wanted.append(item_id)
        ends_at = {item_id: (until_s, until)}
        try:
            await self._patch(whose, patch, lambda _: whose.snoozed.update(ends_at))
        except AssertionError:
            if until_s > time.time():  # else it was over before it arrived
                raise

    async def follow(self, whose: Word) -> None:
        """Follow what is not hidden, say interests, how often mail may come."""
        brands = {one for one in self._rng.sample(BRANDS, 2) if one not in whose.hidden_brands}
        interests = set(self._rng.sample([*PATHS, *BRANDS], self._rng.randint(0, 2)))
        days = self._rng.choice([None, 1, 7])
        patch = {
            "followed_brands": sorted(brands),
            "interests": sorted(interests) or None,
            "email": {"frequency_days": days},
        }

        def then(_: str) -> None:
            whose.followed_brands, whose.interests = brands, interests
            whose.frequency_days = days

        await self._patch(whose, patch, then)

    async def switch(self, whose: Word) -> None:
        """Switch personalization."""
        wanted = not whose.personalization
        await self._patch(
            whose, {"personalization": wanted}, lambda _: setattr(whose, "personalization", wanted)
        )

    async def say(self, whose: Word) -> None:
        """Give or refuse a consent, or take an answer back."""
        purpose = self._rng.choices(PURPOSES, [4, 1, 1])[0]
        allowed = self._rng.choice([True, False, None, *[True] * self.shop.opt_in])
        patch = {"consent": {purpose: allowed}}
        await self._patch(whose, patch, lambda source: whose.says(purpose, allowed, source))

    async def say_along(self, whose: Word) -> None:
        """Say a consent along with a question or with events: of a visitor it is remembered."""
        allowed, before = self._rng.random() < 0.5, whose.allows
        if whose.is_user:
            # Only this answer obeys; a refusal leaves nothing of the event.
            refused = {"consent": {"profiling": False}}
            found = await self._ask("POST", "/v1/recommendations", {**whose.who, **refused})
            if found["personalized"]:
                self.outcome.wrong("personal without consent", f"{whose.person}: {refused}")
            return
        consent = {"consent": {"profiling": allowed}}
        if self._rng.random() < 0.5:
            whose.says("profiling", allowed, "request")
            await self._answer(whose, {**self._question(), **whose.who, **consent})
        else:
            await self._audit(whose)
            whose.says("profiling", allowed, "event")
            if whose.allows:
                whose.frozen = None
            await self._send(whose, [{**one, **consent} for one in self._events(whose, 2)])
        await self._freeze(whose, before)
        await self.read(whose)

    # --- checking -------------------------------------------------------------------------------

    async def read(self, whose: Word) -> None:
        """Read back what was said and, of a user, what was done."""
        target, headers = f"/v1/me/preferences?{urlencode(whose.who)}", self.shop.public_key
        if whose.is_user:
            target, headers = f"/v1/users/{whose.name}/preferences", self.shop.key
        began_s = time.time()
        found = await self._ask("GET", target, Authorization=f"Bearer {headers}")
        if wrong := whose.wrong_in(found, began_s):
            self.outcome.wrong("not what was said", f"{whose.person}: {wrong} {found} {whose}")
        await self._audit(whose)
        if whose.is_user:
            key = {"Authorization": f"Bearer {self.shop.key}"}
            _, known = await self.shop.wire.ask("GET", f"/v1/users/{whose.name}", **key)
            if (counts := known.get("counts", {})) != dict(whose.kept):
                self.outcome.wrong("not what was done", f"{whose.person}: {counts}, {whose.kept}")

    async def _held(self, whose: Word) -> dict[str, Any]:
        """Return what the server holds of somebody besides their preferences."""
        person, today = whose.person, int(time.time()) // 86_400
        names = [keys.hot(person), keys.rest(person), keys.impressions(person)]
        names += [keys.document("profile", person), keys.document("computed", person)]
        found: dict[str, Any] = dict(zip(names, await self.shop.server.mget(names), strict=True))
        for day in (today, today - 1):
            name = keys.deduplication(person, day)
            found[name] = await self.shop.server.hgetall(name)
        return found

    async def _freeze(self, whose: Word, before: bool) -> None:
        """Note what is held of somebody who has just refused, or has agreed again.

        `before`: whether they allowed it until now, or what is held changed for a good reason.
        """
        if whose.allows:
            await self._audit(whose)
            whose.frozen = None
        elif before or whose.frozen is None:
            whose.frozen = await self._held(whose)

    async def _audit(self, whose: Word) -> None:
        """Compare what is held of somebody who refuses with what was held when they did."""
        if whose.frozen is not None and (held := await self._held(whose)) != whose.frozen:
            changed = [name for name in held if held[name] != whose.frozen.get(name)]
            self.outcome.wrong("written without consent", f"{whose.person}: {changed}")
