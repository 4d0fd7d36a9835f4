"""``recsvc models``: what there is, and which one serves."""

from datetime import UTC, datetime
from typing import Any

from feature_store.errors import ArtifactError
from feature_store.registry import ModelRegistry
from recsvc.commands.output import say, stdout, table, write_json
from recsvc.settings import Settings


def show_list(settings: Settings, *, as_json: bool) -> None:
    """List the models, the newest last."""
    registry = ModelRegistry(settings.models_dir)
    state = registry.read()
    rows = [_summary(registry, version, state["current"]) for version in registry.versions()]
    if as_json:
        write_json({"current": state["current"], "held": state["held"], "models": rows})
        return
    if not rows:
        say("There is no model yet: `recsvc train` makes one.")
        return
    shown = table("", "version", "created", "items>", "NDCG@20>", "gate", "reason")
    for row in rows:
        shown.add_row(
            "*" if row["serves"] else "",
            row["version"],
            row["created_at"] or "",
            f"{row['n_items']:,}",
            "" if row["ndcg"] is None else f"{row['ndcg']:.3f}",
            row["gate"] or "",
            row["reason"] or "",
        )
    stdout().print(shown)
    if state["held"]:
        say("Publishing is on hold: `recsvc models resume` ends that.")


def _summary(registry: ModelRegistry, version: str, current: str | None) -> dict[str, Any]:
    try:
        manifest = registry.manifest(version)
    except ArtifactError as error:
        # One damaged model must not hide the others.
        manifest = {"gate": {"decision": "unreadable", "reason": str(error)}}
    gate = manifest.get("gate") or {}
    return {
        "version": version,
        "serves": version == current,
        "created_at": manifest.get("created_at"),
        "n_items": manifest.get("n_items", 0),
        "ndcg": served_ndcg(manifest),
        "gate": gate.get("decision"),
        "reason": gate.get("reason"),
    }


def served_ndcg(manifest: dict[str, Any]) -> float | None:
    """Return the NDCG of what is served, over all items; ``None`` if it was not evaluated."""
    for row in (manifest.get("evaluation") or {}).get("rows", ()):
        if row.get("model") == "served" and row.get("subset") == "all":
            value = row.get("ndcg")
            return None if value is None else float(value)
    return None


def show_one(settings: Settings, version: str, *, as_json: bool) -> None:
    """Show the manifest of a model."""
    registry = ModelRegistry(settings.models_dir)
    manifest = registry.manifest(version)
    if as_json:
        write_json(manifest)
        return
    evaluation = manifest.pop("evaluation", None) or {}
    manifest.pop("files", None)
    shown = table("field", "value")
    shown.add_row("serves", "yes" if registry.current() == version else "no")
    for name, value in _flat(manifest):
        shown.add_row(name, value)
    stdout().print(shown)
    if evaluation.get("rows"):
        say("")
        show_evaluation(evaluation)


def _flat(document: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            continue  # --json has such tables
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            rows.append((prefix + name, f"{value:.6g}"))
        else:
            rows.append((prefix + name, str(value)))
    return rows


def show_evaluation(evaluation: dict[str, Any]) -> None:
    """Show the table of an evaluation, as ``recsvc evaluate`` and ``recsvc demo`` do."""
    rows = evaluation["rows"]
    k = evaluation.get("k", 20)
    shown = table(
        "model", "subset", f"NDCG@{k}>", "95 %>", f"recall@{k}>", "hit rate>", "coverage>",
        "novelty>", "customers>",
    )  # fmt: skip
    for row in rows:
        low, high = row.get("ndcg_ci95") or (None, None)
        style = "bold" if row["model"] == "served" else None
        shown.add_row(
            row["model"],
            row["subset"],
            _share(row.get("ndcg")),
            "" if low is None or high is None else f"{low:.3f}–{high:.3f}",
            _share(row.get("recall")),
            _share(row.get("hit_rate")),
            _share(row.get("coverage")),
            "" if row.get("novelty") is None else f"{row['novelty']:.1f}",
            f"{row.get('n_users', 0):,}",
            style=style,
        )
    stdout().print(shown)


def show_evaluation_shortly(evaluation: dict[str, Any]) -> None:
    """Show one line a model: what it finds again, and what it finds that is new to the customer."""
    k = evaluation.get("k", 20)
    by_model: dict[str, dict[str, dict[str, Any]]] = {}
    for row in evaluation["rows"]:
        by_model.setdefault(row["model"], {})[row["subset"]] = row
    shown = table(
        "model", f"NDCG@{k}>", "95 %>", f"recall@{k}>", "hit rate>", f"NDCG@{k}, new items>",
        f"recall@{k}, new items>", "customers>",
    )  # fmt: skip
    for model, subsets in by_model.items():
        every, new = subsets.get("all", {}), subsets.get("new", {})
        low, high = every.get("ndcg_ci95") or (None, None)
        shown.add_row(
            model,
            _share(every.get("ndcg")),
            "" if low is None or high is None else f"{low:.3f}–{high:.3f}",
            _share(every.get("recall")),
            _share(every.get("hit_rate")),
            _share(new.get("ndcg")),
            _share(new.get("recall")),
            f"{every.get('n_users', 0):,}",
            style="bold" if model == "served" else None,
        )
    stdout().print(shown)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def promote(settings: Settings, version: str) -> None:
    """Let a model serve."""
    ModelRegistry(settings.models_dir).promote(version, datetime.now(UTC))
    say(f"{version} serves.")


def rollback(settings: Settings) -> None:
    """Let the model serve that served before."""
    version = ModelRegistry(settings.models_dir).rollback(datetime.now(UTC))
    say(f"{version} serves again; nothing is published until `recsvc models resume`.")


def hold(settings: Settings) -> None:
    """Publish nothing for now."""
    ModelRegistry(settings.models_dir).set_hold(True, datetime.now(UTC))
    say("Publishing is on hold until `recsvc models resume`.")


def resume(settings: Settings) -> None:
    """Publish again."""
    ModelRegistry(settings.models_dir).set_hold(False, datetime.now(UTC))
    say("What `recsvc train` brings and the gate lets through serves again.")
