"""How every command starts and ends; light, because ``recsvc --help`` imports it."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from feature_store.errors import NotFoundError, RecsvcError, UserError
from recsvc import memory

if TYPE_CHECKING:
    from recsvc.settings import Settings

_data_dir: list[Path] = []
_interrupted: list[bool] = []
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def one_thread_each() -> None:
    """Give this process one thread for arithmetic, unless the environment says otherwise.

    To be called before numpy is imported, or it is too late. A worker answers on one thread; more
    of them would only fight for the cores.
    """
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")


def choose_data_dir(path: Path | None) -> None:
    """Remember what ``--data-dir`` before the command said."""
    _data_dir[:] = [] if path is None else [path]


def settings(**overrides: object) -> "Settings":
    """Read the settings, those given on the command line first; ``None`` is not given."""
    from recsvc.settings import load_settings  # noqa: PLC0415 - help need not wait for pydantic

    if _data_dir and overrides.get("data_dir") is None:
        overrides["data_dir"] = _data_dir[-1]
    return load_settings(**overrides)


def run(app: typer.Typer) -> int:
    """Run the command line.

    Returns
    -------
    int
        Exit code: 2 for a user's mistake, 1 for a failure, 130 after Ctrl-C.
    """
    memory.collect_rarely()
    # A command that is asked to end stops what it started, as it does at Ctrl-C.
    signal.signal(signal.SIGTERM, _end)
    # asyncio would turn Ctrl-C into the cancellation of a task, which a library may swallow.
    signal.signal(signal.SIGINT, _interrupt)
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except (UserError, NotFoundError) as error:
        return _say(error, 2)
    except RecsvcError as error:
        return _say(error, 1)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "recsvc"
        message = str(getattr(error, "format_message", error.__str__)())
        return _say(f"{message.rstrip('.')}; see `{where} --help`", 2)
    except BrokenPipeError:
        # Whoever read our output has enough of it; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _say(error, 1)
    return code if isinstance(code, int) else 0


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _interrupted.append(True)
    raise KeyboardInterrupt


def check_interrupted() -> None:
    """Raise the interrupt again that came while an object was being destroyed, and was lost."""
    if _interrupted:
        raise KeyboardInterrupt


def _say(message: object, code: int) -> int:
    sys.stderr.write("recsvc: " + " ".join(str(message).splitlines()) + "\n")
    return code
