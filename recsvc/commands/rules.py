"""``recsvc rules``: lint, audit, export, import."""

import getpass
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer

from feature_store.catalogue_files import CatalogueFiles
from feature_store.change_log import ChangeLog
from feature_store.conditions import Vocabulary
from feature_store.documents import Document, SiteDocuments, Write, verify_chain
from feature_store.site_history import Entry, audit_of, site_entries
from feature_store.store import Store
from recsvc.commands.output import note, say, stdout, table, write_json
from recsvc.commands.session import with_store
from recsvc.merchandising.linting import drafts_of, lint
from recsvc.merchandising.publishing import LIVE_RULE, RULE, live_rules, publication, publishing
from recsvc.merchandising.rule_files import RuleFile, exported, planned, read_file, write_file
from recsvc.merchandising.site import read_site
from recsvc.settings import Settings


def show_lint(settings: Settings, *, live: bool, as_json: bool) -> None:
    """Print what is probably wrong; exit code 1 if there is an error among it."""

    async def read(store: Store) -> SiteDocuments:
        return await store.documents.snapshot()

    documents = with_store(settings, read)
    site = read_site(documents)
    catalogue = CatalogueFiles(settings.catalogue_dir).load().catalogue
    rules = list(site.rules.values()) if live else drafts_of(documents)
    findings = lint(rules, catalogue, site.placements, site.segments, int(time.time()))
    if as_json:
        write_json({"rules": len(rules), "findings": [asdict(one) for one in findings]})
    elif findings:
        shown = table("severity", "rule", "finding", "what")
        for one in findings:
            shown.add_row(one.severity, one.rule_id, one.kind, one.detail)
        stdout().print(shown)
    else:
        say(f"Nothing was found in {len(rules):,} rules.")
    if any(one.severity == "error" for one in findings):
        raise typer.Exit(1)


def show_audit(
    settings: Settings, rule_id: str | None, *, verify: bool, limit: int, as_json: bool
) -> None:
    """Print who changed what.

    Raises
    ------
    ConflictError
        If the chain of hashes is broken, naming where.
    """

    async def read(store: Store) -> list[Entry]:
        return await site_entries(store.documents, ChangeLog(settings.data_dir))

    entries = with_store(settings, read)
    verified = verify_chain(entries)
    kinds = None if rule_id is None else (RULE, LIVE_RULE)
    found = [] if verify else audit_of(entries, kinds, rule_id)[::-1][:limit]
    if as_json:
        write_json({"verified": verified, "entries": found})
        return
    if found:
        shown = table("at", "by", "what", "revision>", "how")
        for one in found:
            what = f"{one['kind']} {one['id']}"
            shown.add_row(one["at"], one["by"], what, str(one["revision"]), _what(one))
        stdout().print(shown)
    note(f"{verified:,} changes; none was altered, removed or put in between.")


def _what(entry: Entry) -> str:
    if entry["after"] is None:
        return "deleted"
    verb = "made" if entry["before"] is None else "changed"
    return f"{verb}: {entry['note']}" if entry["note"] else verb


def export_rules(settings: Settings, file: Path, *, live: bool) -> None:
    """Write rules and placements into a file."""

    async def read(store: Store) -> RuleFile:
        return exported(await store.documents.snapshot(), live=live)

    content = with_store(settings, read)
    write_file(file, content)
    note(f"{len(content.rules):,} rules and {len(content.placements):,} placements are in {file}.")


def import_rules(
    settings: Settings, file: Path, *, publish: bool, force: bool, dry_run: bool, as_json: bool
) -> None:
    """Take rules and placements from a file, all or none.

    Raises
    ------
    UserError
        If the file is wrong.
    ConflictError
        If others changed something since the export.
    """
    content = read_file(file)
    by, why = f"user:{getpass.getuser()}", f"import of {file.name}"

    def plan(site: SiteDocuments) -> list[Write]:
        segments = frozenset(read_site(site).segments)
        vocabulary = Vocabulary(segments=segments, sensitive=settings.sensitive_fields)
        return planned(site, content, vocabulary, force=force)

    def plan_publication(site: SiteDocuments) -> list[Write]:
        in_force = {rule_id: revision for rule_id, revision, _ in live_rules(site)}
        stale = [
            name
            for name in content.rules
            if (known := site.get(RULE, name)) and in_force.get(name) != known.revision
        ]
        return publishing(site, stale) if stale else []

    async def work(store: Store) -> tuple[Sequence[Write] | Sequence[Document], int]:
        if dry_run:
            site = await store.documents.snapshot()
            return plan(site), publication(site)[0]
        site, changed = await store.documents.change(plan, by, why)
        if publish:
            site, _ = await store.documents.change(plan_publication, by, why)
        await store.workers.call()
        return changed, publication(site)[0]

    changed, version = with_store(settings, work)
    names = [f"{one.kind} {one.id}" for one in changed]
    if as_json:
        write_json({"changed": names, "dry_run": dry_run, "rules_version": version})
        return
    for name in names:
        say(name)
    verb = "would change" if dry_run else "changed"
    note(f"{len(names):,} documents {verb}; rules version {version}.")
