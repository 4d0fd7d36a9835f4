"""Settings: where a value comes from, and what a bad one says."""

from pathlib import Path

import pytest

from feature_store.errors import UserError
from recsvc.settings import CONFIG_ENV, ENV_PREFIX, Settings, load_settings


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*Settings.model_fields, "config"]:
        monkeypatch.delenv(ENV_PREFIX + name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_arguments_win_over_environment_over_file_over_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "recsvc.toml").write_text('port = 1001\nworkers = 3\nhost = "::1"\n')
    monkeypatch.setenv("RECSVC_PORT", "1002")
    monkeypatch.setenv("RECSVC_WORKERS", "4")
    settings = load_settings(port=1003, workers=None)
    assert (settings.port, settings.workers, settings.host) == (1003, 4, "::1")
    assert settings.redis_url is None
    assert settings.models_dir == Path(".recsvc/models")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "REDIS_URL", "SECRET"):
        monkeypatch.setenv(ENV_PREFIX + name, "")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("port", "70000", "an integer from 0 to 65535"),
        ("port", "http", "an integer from 0 to 65535"),
        ("workers", "0", "an integer from 1 to 64"),
        ("store_timeout_ms", "0", "a number above 0 to 10000"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("redis_url", "http://localhost", "redis://host:port/0"),
        ("redis_url", "unix://", "names the socket"),
        ("redis_url", "redis://", "names a host"),
        ("currency", "euro", "[A-Z]{3}"),
    ],
)
def test_a_bad_value_names_setting_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(ENV_PREFIX + name.upper(), value)
    with pytest.raises(UserError) as caught:
        load_settings()
    line = str(caught.value)
    assert "\n" not in line
    for part in (name, ENV_PREFIX + name.upper(), repr(value), allowed):
        assert part in line


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSVC_SECRET", "hunter2")
    monkeypatch.setenv("RECSVC_REDIS_URL", "http://user:hunter2@host")
    with pytest.raises(UserError) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(caught.value.__cause__)
    assert "x" * 40 not in repr(load_settings(secret="x" * 40, redis_url="redis://host"))


def test_an_unknown_setting_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "recsvc.toml").write_text("prot = 1\n")
    with pytest.raises(UserError, match="no setting 'prot'"):
        load_settings()


def test_a_broken_file_and_a_missing_one_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "recsvc.toml").write_text("port = = 1\n")
    with pytest.raises(UserError, match="not valid TOML"):
        load_settings()
    monkeypatch.setenv(CONFIG_ENV, "elsewhere.toml")
    with pytest.raises(UserError, match=r"RECSVC_CONFIG names elsewhere\.toml"):
        load_settings()


def test_every_setting_says_what_it_means() -> None:
    assert all(field.description for field in Settings.model_fields.values())
