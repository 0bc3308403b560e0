"""``nmt-async``: the list of its subcommands, and how their errors end."""

from __future__ import annotations

import errno
import sys

import typer

from nmt_async import __version__
from nmt_async.bench.decoding import DecodeBenchOptions
from nmt_async.bench.throughput import BenchOptions
from nmt_async.display.watch import WatchOptions
from nmt_async.doctor.options import DoctorOptions
from nmt_async.errors import RunFailure, UserError
from nmt_async.export.options import ExportOptions, ImportOptions
from nmt_async.planning.options import SimulateOptions
from nmt_async.score.evaluation import EvaluateOptions
from nmt_async.score.options import ScoreOptions
from nmt_async.study.compare_options import CompareOptions
from nmt_async.text.options import PrepareOptions
from nmt_async.training.options import TrainOptions
from nmt_async.translate.files import TranslateOptions

from . import (
    average,
    bench,
    bench_decode,
    compare,
    doctor,
    evaluate,
    export,
    import_,
    prepare,
    report,
    score,
    simulate,
    study,
    train,
    translate,
    watch,
)
from .declare import command

INTERRUPTED = 130
"""The exit code that shells give for SIGINT."""

EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 a mistake in what was typed, 3 diverged."

app = typer.Typer(
    name="nmt-async",
    help="Trains Transformer translation models with synchronous, asynchronous and hybrid updates.",
    epilog="\n".join(
        ["From text to scores:", *(part.EXAMPLE for part in (prepare, train, translate, evaluate)), "", EXIT_CODES]
    ),
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nmt-async {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


COMMANDS = {
    prepare: PrepareOptions,
    doctor: DoctorOptions,
    train: TrainOptions,
    watch: WatchOptions,
    translate: TranslateOptions,
    evaluate: EvaluateOptions,
    score: ScoreOptions,
    average: average.AverageOptions,
    export: ExportOptions,
    import_: ImportOptions,
    simulate: SimulateOptions,
    report: report.ReportOptions,
    compare: CompareOptions,
    study: study.StudyOptions,
}
"""Each subcommand's module, called as the command is, and its options; in the order of the help."""

for module, declaration in COMMANDS.items():
    command(
        app, declaration, module.run, name=module.__name__.rpartition(".")[2].rstrip("_"), example=module.EXAMPLE,
        arguments=getattr(module, "ARGUMENTS", None), groups=getattr(module, "GROUPS", ()),
    )  # fmt: skip

app.add_typer(bench.group, name="bench")
command(
    bench.group, BenchOptions, bench.run, name=bench.TRAINING, example=bench.EXAMPLE,
    arguments=bench.ARGUMENTS, groups=bench.GROUPS,
)  # fmt: skip
command(
    bench.group, DecodeBenchOptions, bench_decode.run, name="decode", example=bench_decode.EXAMPLE,
    arguments=bench_decode.ARGUMENTS,
)  # fmt: skip


def run(arguments: list[str] | None = None) -> int:
    """The exit code of the command line ``arguments`` (by default those typed), as `EXIT_CODES` says."""
    try:
        result = app(args=sys.argv[1:] or ["--help"] if arguments is None else arguments, standalone_mode=False)
    except typer.TyperException as error:
        return _say(error.format_message(), 2)
    except (UserError, RunFailure) as error:
        return _say(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _say("interrupted.", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except MemoryError:
        return _say("there is not enough memory for this.", 1)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" while writing {error.filename}" if error.filename else ""
            return _say(f"the disk is full{where}; free some space and run the same command again.", 1)
        if error.filename:
            return _say(f"{error.filename}: {error.strerror}.", 1)
        raise
    if result == INTERRUPTED:  # Typer has made this of a KeyboardInterrupt
        return _say("interrupted.", INTERRUPTED)
    return result if isinstance(result, int) else 0


def _say(message: str, code: int) -> int:
    print(f"nmt-async: {message}", file=sys.stderr)
    return code
