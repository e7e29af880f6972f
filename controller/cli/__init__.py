"""The console script `fleetpulse`: one group, whose commands are imported when they are used.

`fleetpulse --help` and the prober's commands never import the control plane's libraries. What a
person got wrong is told in one line, whichever command says so.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from typing import Final

import click

COMMANDS: Final = {
    "up": ("controller.cli.up:up", "The whole system on this machine, with a simulated fleet."),
    "probe": ("probe.cli:probe", "Run the prober daemon."),
    "controller": ("controller.cli.daemon:controller", "Run the controller daemon."),
    "check": ("probe.cli:check", "Probe one URL or replica once, and say what was found."),
    "targets": ("probe.cli:targets", "Feed the prober by hand."),
    "status": ("probe.cli:status", "Show replica health as the bus has it."),
    "capacity": ("probe.cli:capacity", "Measure what one worker could watch on this machine."),
    "deployment": ("controller.cli.deployment:deployment", "Create, show and scale deployments."),
    "revision": ("controller.cli.revision:revision", "Add, list and show revisions."),
    "rollout": ("controller.cli.rollout:rollout", "Start, watch and abort rollouts."),
    "route": ("controller.cli.route:route", "List routes; register external replicas."),
    "explain": (
        "controller.cli.explain:explain",
        "Why a replica or deployment is as it is, and what comes next.",
    ),
    "simulate": (
        "controller.cli.simulate:simulate",
        "Run a scenario in virtual time, and check what must hold.",
    ),
    "db": ("controller.cli.db:db", "Migrate the database's schema."),
}
"""Name, where it lives, and its line in `--help` (which must not import it)."""

_SHOWN_CHARS: Final = 80
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What writing the output may end in; a closed pipe is click's affair."""


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Tell an error of the command line as every other message of ours."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:  # asked for nothing, given the help
        raise
    except click.ClickException as error:
        text = error.format_message()
        if isinstance(error, click.UsageError) and error.ctx is not None:
            text = f"{text} See `{error.ctx.command_path} --help`."
        click.echo(f"fleetpulse: {text}", err=True)
        raise click.exceptions.Exit(error.exit_code) from error
    except UnicodeEncodeError as error:
        if error.encoding != "utf-8":  # the terminal's
            raise
        what = ascii(error.object[:_SHOWN_CHARS])
        click.echo(f"fleetpulse: {what} is not UTF-8: write it in letters that are", err=True)
        raise click.exceptions.Exit(2) from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        click.echo(f"fleetpulse: {error.strerror}: make room, or write elsewhere", err=True)
        raise click.exceptions.Exit(1) from error


class LazyGroup(click.Group):
    """A group that knows its commands' names, and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is not a command")
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what stands before the command."""
        with _in_one_line():
            return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a mistyped one is answered with the nearest name."""
        if args[0] not in COMMANDS:
            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        with _in_one_line():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("fleetpulse"), prog_name="fleetpulse")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Tell which inference replicas can serve, and change them without dropping a request."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False
