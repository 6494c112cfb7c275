"""stub"""

import typer

app = typer.Typer()


@app.command()
def join() -> None: ...
@app.command()
def leave() -> None: ...
