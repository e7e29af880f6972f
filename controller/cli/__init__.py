"""The console script `fleetpulse`: one group, whose commands are imported when they are used.

`fleetpulse --help` and the prober's commands never import the control plane's libraries.
"""

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
    "deployment": ("controller.cli.deployment:deployment", "Create, show and scale deployments."),
    "revision": ("controller.cli.revision:revision", "Add and list revisions."),
    "rollout": ("controller.cli.rollout:rollout", "Start, watch and abort rollouts."),
    "route": ("controller.cli.route:route", "List routes; register external replicas."),
    "db": ("controller.cli.db:db", "Migrate the database's schema."),
}
"""Name, where it lives, and its line in `--help` (which must not import it)."""


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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("fleetpulse"), prog_name="fleetpulse")
def main() -> None:
    """Tell which inference replicas can serve, and change them without dropping a request."""
