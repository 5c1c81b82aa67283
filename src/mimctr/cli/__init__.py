"""The command ``mimctr``: one file a command; each only translates. All checks live in the library.

stdout is the result, stderr is progress. Exit status: 0 done, 1 an expected failure (one line a problem, no
traceback), 2 wrong usage, 130 interrupted.

Commands import what they run when they run: PyTorch takes seconds to load, ``mimctr --help`` should not.
"""

import contextlib
import errno
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from mimctr import __version__
from mimctr.cli import (
    ab_test,
    bazaar,
    center,
    cost,
    csft,
    embed,
    encoder_tables,
    encoders,
    evaluate,
    explore,
    export,
    fashion,
    features,
    foundation,
    join,
    off_policy,
    plain,
    prepare,
    pretrain,
    push,
    report,
    reproduce,
    run,
    serve,
    settings,
    sweep,
    train,
)
from mimctr.errors import MimctrError

# An OpenMP thread that finds its core busy spins for long; bounding that avoids a 10-25 fold slow-down.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

app = typer.Typer(
    help="Click-through-rate models that look at what items are, not only at who clicked them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mimctr {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    quiet: bool = typer.Option(False, "--quiet", "-q", help="only warnings on stderr"),
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="print the version"
    ),
) -> None:
    logging.basicConfig(
        level=logging.WARNING if quiet or os.environ.get("RANK", "0") != "0" else logging.INFO,
        format="%(message)s",
        datefmt="[%X]",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False, show_level=False)],
        force=True,
    )
    for noisy in ("httpx", "fontTools", "matplotlib", "onnx_ir", "onnxscript", "PIL", "transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn expected failures into lines on stderr and an exit status; anything else is a bug and shows itself."""

    @functools.wraps(command)
    def guarded(*args: Any, **options: Any) -> None:
        try:
            with _processes():
                command(*args, **options)
        except MimctrError as error:
            print(f"mimctr: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        except OSError as error:
            print(f"mimctr: {_system_line(error)}", file=sys.stderr)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            print(
                "mimctr: interrupted. Run the same command again to go on from where it stopped.",
                file=sys.stderr,
            )
            raise typer.Exit(130) from None

    return guarded


@contextlib.contextmanager
def _processes() -> Iterator[None]:
    """Join the processes that torchrun started, if it did; only the first one prints. They end when the work does."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    from mimctr.distributed import is_main, session

    with session(), contextlib.ExitStack() as silence:
        if not is_main():
            silence.enter_context(contextlib.redirect_stdout(silence.enter_context(open(os.devnull, "w"))))
        yield
    # Of 36 runs in two processes PyTorch's gloo aborted one at the interpreter's end, its work done.
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


def _system_line(error: OSError) -> str:
    """Return the system's own words (a missing permission, say) with the path; for a full disk, what to do too."""
    where = f"{error.filename}: " if error.filename else ""
    reason = str(error.strerror or error).rstrip(".")
    full = error.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in reason
    return f"{where}{reason}." + (
        " Free some space and run the same command again; it goes on from there." if full else ""
    )


for module in (
    run,
    reproduce,
    join,
    bazaar,
    fashion,
    prepare,
    foundation,
    pretrain,
    plain,
    csft,
    embed,
    encoder_tables,
    encoders,
    features,
    train,
    sweep,
    evaluate,
    cost,
    ab_test,
    off_policy,
    report,
    explore,
    export,
    push,
    serve,
    settings,
):
    app.command(name=module.NAME, epilog=module.EXAMPLES)(_guarded(module.command))

for name, epilog in center.EXAMPLES.items():
    center.app.command(name=name, epilog=f"Example: {epilog}")(_guarded(center.COMMANDS[name]))
app.add_typer(center.app, name=center.NAME)


def main() -> None:
    """Run the command line."""
    app()
