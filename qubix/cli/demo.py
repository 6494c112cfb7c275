"""stub"""

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def demo() -> None: ...
