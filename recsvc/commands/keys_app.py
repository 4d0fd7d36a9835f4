"""``recsvc keys``, as the command line shows it."""

from pathlib import Path
from typing import Annotated

import typer

from recsvc.commands.exits import settings
from recsvc.commands.options import Json

# Each command imports what it needs, so that `recsvc --help` is there at once.
keys_app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@keys_app.command("create")
def keys_create(  # noqa: PLR0917 - a command has as many options as it has
    name: Annotated[str, typer.Option(help="Whose key it is.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may do; repeat it, or `all`. E.g. recs:read.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="For the code of pages, where anybody can read it.")
    ] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Pages that it is for; repeat it. E.g. https://shop.example."),
    ] = None,
    signing: Annotated[
        bool, typer.Option("--signing", help="For signing customer tokens in the shop's backend.")
    ] = False,
    algorithm: Annotated[
        str | None, typer.Option(help="With --signing: EdDSA, which is the default, or HS256.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="With --signing: an Ed25519 public key as PEM.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key. What is secret is shown once, and only its HMAC is kept.

    A signing key lets a shop's backend make tokens with which a browser acts for one
    customer. With EdDSA recsvc has the public key only, so nobody here can sign; with
    HS256 both sides know the secret.

    \b
    Examples:
      recsvc keys create --name shop --scope recs:read --scope events:write
      recsvc keys create --name admin --scope all
      recsvc keys create --name page --public --origin https://shop.example
      recsvc keys create --name login --signing --public-key login.pem --origin https://shop.example
    """  # noqa: D301
    from recsvc.commands import api_keys  # noqa: PLC0415

    if not signing and (algorithm is not None or public_key is not None):
        raise typer.BadParameter("--algorithm and --public-key are for --signing")
    origins = tuple(origin or ())
    if not signing:
        api_keys.create(
            settings(), name, scope or (), public=public, origins=origins, as_json=as_json
        )
        return
    if public or scope:
        raise typer.BadParameter(
            "a signing key is neither public nor has scopes: a token may do what a customer may"
        )
    api_keys.create_signing(
        settings(), name, algorithm or "EdDSA", public_key, origins, as_json=as_json
    )


@keys_app.command("list")
def keys_list(as_json: Json = False) -> None:
    """List the keys; never the keys themselves."""
    from recsvc.commands import api_keys  # noqa: PLC0415

    api_keys.show_list(settings(), as_json=as_json)


@keys_app.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(help="An id from `recsvc keys list`.")],
) -> None:
    """Revoke a key, in every worker within 5 seconds; tokens end with their signing key."""
    from recsvc.commands import api_keys  # noqa: PLC0415

    api_keys.revoke(settings(), key_id)
