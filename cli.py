"""The command line: verbs only. Each parses, calls one function of a room, and prints."""

import typer

app = typer.Typer(help="PgM")


def main() -> None:
    app()
