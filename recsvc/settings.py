"""Settings: ``RECSVC_*`` in the environment, then ``recsvc.toml``, then the defaults.

Every field says in its description what it means and what is allowed; ``docs/operations.md`` and
``recsvc doctor`` show the same texts.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from feature_store.cluster import is_cluster, parse_cluster_url
from feature_store.errors import UserError

ENV_PREFIX = "RECSVC_"
CONFIG_FILE = "recsvc.toml"
CONFIG_ENV = "RECSVC_CONFIG"

REDIS_SCHEMES = ("redis", "rediss", "unix")
MIN_SECRET_LENGTH = 32


def _check_redis_url(value: str | None) -> str | None:
    if value is None or not value.strip():
        return None
    if is_cluster(value):
        parse_cluster_url(value)
        return value
    parts = urlsplit(value)
    if parts.scheme not in REDIS_SCHEMES:
        raise ValueError(
            "a URL redis://host:port/0, rediss://host:port/0, unix:///path/to/socket or"
            " redis+cluster://host:port,host:port"
        )
    if parts.scheme == "unix" and not parts.path:
        raise ValueError("a unix URL names the socket, as in unix:///run/valkey.sock")
    if parts.scheme != "unix" and not parts.hostname:
        raise ValueError("a URL that names a host, as in redis://localhost:6379/0")
    return value


def _check_secret(value: SecretStr | None) -> SecretStr | None:
    if value is None or not value.get_secret_value():
        return None
    if len(value.get_secret_value()) < MIN_SECRET_LENGTH:
        raise ValueError(f"at least {MIN_SECRET_LENGTH} characters, as from `openssl rand -hex 32`")
    return value


class Settings(BaseSettings):
    """All settings of recsvc.

    Construct it with :func:`load_settings`, which turns a bad value into one clear line.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    data_dir: Annotated[
        Path,
        Field(
            description="Folder of everything that is kept: event log, catalogue, models, server"
        ),
    ] = Path(".recsvc")
    redis_url: Annotated[
        str | None,
        AfterValidator(_check_redis_url),
        Field(
            description="redis://, rediss:// or unix:// URL of the server, or redis+cluster:// with"
            " some nodes of a cluster; unset, recsvc starts an embedded one under the data folder"
        ),
    ] = None
    host: Annotated[
        str, Field(min_length=1, description="Address to listen on; 0.0.0.0 for every interface")
    ] = "127.0.0.1"
    port: Annotated[
        int, Field(ge=0, le=65535, description="Port to listen on; 0 lets the system choose one")
    ] = 8000
    workers: Annotated[
        int, Field(ge=1, le=64, description="Worker processes; about one for each core")
    ] = 1
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="Least level that is logged"),
    ] = "info"
    access_log_share: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of requests that get a log line, from 0 to 1; every 5xx gets one",
        ),
    ] = 0.0
    recall_lease_s: Annotated[
        float,
        Field(
            ge=0,
            le=3600,
            description="Seconds without the server after which a worker refuses recommendations,"
            " because it cannot know of a recall; 0 for never",
        ),
    ] = 10.0
    store_timeout_ms: Annotated[
        float,
        Field(
            gt=0,
            le=10_000,
            description="Milliseconds after which a page read counts the server as down",
        ),
    ] = 50.0
    snapshot_poll_s: Annotated[
        float,
        Field(gt=0, le=60, description="Seconds between two looks for a new model or catalogue"),
    ] = 0.5
    shutdown_timeout_s: Annotated[
        float, Field(gt=0, le=600, description="Seconds that running requests get when stopping")
    ] = 10.0
    max_body_bytes: Annotated[
        int, Field(ge=1024, le=2**30, description="Largest request body in bytes; more is a 413")
    ] = 4 * 2**20
    backlog: Annotated[
        int, Field(ge=1, le=65535, description="Connections that may wait to be accepted")
    ] = 2048
    currency: Annotated[
        str,
        Field(
            pattern=r"^[A-Z]{3}$",
            description="ISO 4217 code for amounts that come without a currency",
        ),
    ] = "EUR"
    max_pages_in_flight: Annotated[
        int, Field(ge=1, le=65535, description="Recommendations that a worker answers at once")
    ] = 1024
    max_events_in_flight: Annotated[
        int,
        Field(ge=1, le=65535, description="Requests with events that a worker answers at once"),
    ] = 256
    max_other_in_flight: Annotated[
        int,
        Field(ge=1, le=65535, description="All other requests that a worker answers at once"),
    ] = 64
    max_loop_lag_ms: Annotated[
        float,
        Field(
            gt=0,
            le=60_000,
            description="When the event loop is later than this, other requests are refused; at"
            " twice as much events, at eight times as much recommendations",
        ),
    ] = 250.0
    profiling_consent_categories: Annotated[
        str,
        Field(
            description="Categories of Segment's consent object that mean profiling, with commas"
        ),
    ] = "personalization,personalisation,profiling"
    profiling: Annotated[
        Literal["opt_out", "opt_in"],
        Field(
            description="Whether people who were never asked may be profiled (opt_out), or only"
            " those who agreed (opt_in)"
        ),
    ] = "opt_out"
    sensitive_attributes: Annotated[
        str | None,
        Field(
            description="Attributes of users, with commas, that a segment or a rule may use only if"
            " it says allow_sensitive"
        ),
    ] = None
    max_waiting_events: Annotated[
        int,
        Field(
            ge=1,
            description="Accepted events that may wait for the archive; beyond that new ones get a"
            " 503 with Retry-After, while pages go on",
        ),
    ] = 1_000_000
    max_item_changes: Annotated[
        int,
        Field(
            ge=1,
            le=1_000_000,
            description="Changes of items that may lie over the catalogue's file; then one worker"
            " has them folded into a new one",
        ),
    ] = 2_000
    words_dir: Annotated[
        Path | None,
        Field(
            description="Folder with texts of the shop's own, such as de.toml: of another language,"
            " or instead of the built-in ones"
        ),
    ] = None
    decision_days: Annotated[
        int,
        Field(ge=1, le=3650, description="Days for which the records of answers are kept"),
    ] = 7
    decision_sample: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of answers that are recorded with every candidate, from 0 to 1",
        ),
    ] = 0.01
    public_events_per_minute: Annotated[
        int,
        Field(
            ge=1,
            le=1_000_000,
            description="Events of one visitor that public keys may send in a minute",
        ),
    ] = 240
    secret: Annotated[
        SecretStr | None,
        AfterValidator(_check_secret),
        Field(
            description=f"Server secret under which API keys are stored, at least"
            f" {MIN_SECRET_LENGTH} characters; unset, one is made in the data folder"
        ),
    ] = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments, then the environment, then the TOML file; no ``.env``, no YAML."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())

    @property
    def consent_categories(self) -> frozenset[str]:
        """The categories of consent that mean profiling, in lower case."""
        names = self.profiling_consent_categories.lower().split(",")
        return frozenset(name.strip() for name in names if name.strip())

    @property
    def sensitive_fields(self) -> frozenset[str]:
        """Fields of conditions that need ``allow_sensitive``."""
        names = (name.strip() for name in (self.sensitive_attributes or "").split(","))
        return frozenset(f"user.attributes.{name}" for name in names if name)

    @property
    def events_dir(self) -> Path:
        """The event log in Parquet."""
        return self.data_dir / "events"

    @property
    def imports_dir(self) -> Path:
        """Journal and rejects of imports."""
        return self.data_dir / "imports"

    @property
    def catalogue_dir(self) -> Path:
        """Columns of the catalogue."""
        return self.data_dir / "catalogue"

    @property
    def models_dir(self) -> Path:
        """Model artifacts and the registry."""
        return self.data_dir / "models"


def config_file() -> Path:
    """Return the path of the TOML file; ``RECSVC_CONFIG`` names another than ``recsvc.toml``."""
    return Path(os.environ.get(CONFIG_ENV) or CONFIG_FILE)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings.

    Parameters
    ----------
    **overrides
        Values from the command line, which win over everything; ``None`` means "not given".

    Raises
    ------
    UserError
        If a value is not allowed, a setting is unknown, or the TOML file cannot be read. The
        message names the setting, the value and what is allowed.
    """
    path = config_file()
    if CONFIG_ENV in os.environ and not path.is_file():
        raise UserError(f"{CONFIG_ENV} names {path}, which is not a file")
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise UserError("; ".join(_line(detail) for detail in error.errors())) from error


def _line(detail: Any) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = ", ".join(Settings.model_fields)
        return f"there is no setting {name!r}; the settings are: {known}"
    field = Settings.model_fields[name]
    variable = ENV_PREFIX + name.upper()
    return (
        f"the setting {name} ({variable}) is {_shown(name, detail)}; allowed: {_allowed(detail)}"
        + (f" - {field.description}" if field.description else "")
    )


def _shown(name: str, detail: Any) -> str:
    if name == "secret":
        return "(hidden)"
    # A URL may hold a password.
    return re.sub(r"//[^/@]*@", "//***@", repr(detail["input"]))


def _allowed(detail: Any) -> str:
    field = Settings.model_fields[str(detail["loc"][0])]
    bounds = {
        kind: getattr(limit, kind)
        for limit in field.metadata
        for kind in ("gt", "ge", "le")
        if hasattr(limit, kind)
    }
    if bounds:
        low = f"from {bounds['ge']}" if "ge" in bounds else f"above {bounds['gt']}"
        number = "an integer" if field.annotation is int else "a number"
        return f"{number} {low} to {bounds['le']}"
    message = str(detail["msg"]).removeprefix("Value error, ")
    return message.removeprefix("Input should be ").removeprefix("String should ")
