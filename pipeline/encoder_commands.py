"""`pgm encoders ls | show | check`: which encoders there are, what one is like, how fast it is here."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .encoders.facts import Facts

encoders_app = typer.Typer(no_args_is_help=True, help="The encoders `pgm extract` can run, and how fast one is here.")

Name = Annotated[str, typer.Argument(help="A preset or a name of `pgm encoders ls`, a hub id, or a folder.")]
Modality = Annotated[str | None, typer.Option(help="text, vision or audio; by default whatever it encodes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@encoders_app.command("ls", epilog="Example: pgm encoders ls")
def ls(as_json: AsJson = False) -> None:
    """List presets, encoders that have a name, and the families of checkpoints that run."""
    from .encoders.facts import listing

    told = listing()
    if as_json:
        typer.echo(json.dumps(told, indent=1))
        return
    typer.echo("presets (--encoders NAME)")
    for name, preset in told["presets"].items():
        typer.echo(f"  {name:<8} {preset['summary']}")
        for modality, source in preset.items():
            if modality != "summary" and source != name:
                typer.echo(f"  {'':<8}   {modality:<7} {source}")
    typer.echo("encoders by name (--encoder MODALITY=NAME)")
    for name, builder in told["encoders"].items():
        typer.echo(f"  {name:<8} {', '.join(builder['modalities']) or 'any series'}: {builder['summary']}")
    typer.echo("checkpoints (--encoder MODALITY=HUB_ID or FOLDER), read by transformers")
    for modality, families in told["families"].items():
        typer.echo(f"  {modality:<8} {', '.join(families)}")


@encoders_app.command(
    "show", epilog="Example: pgm encoders show paper\n\npgm encoders show ./my-clip --modality vision"
)
def show(name: Name, modality: Modality = None, as_json: AsJson = False) -> None:
    """Say of a preset's or a single encoder's width, tokens an item, parameters, licence, and where its files are."""
    from .encoders.facts import facts, named

    found = [facts(modality, source) for modality, source in named(name, modality).items()]
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1))
        return
    for one in found:
        typer.echo(f"{one.modality}: {one.source}" + (" (random weights, not pretrained)" * one.random_weights))
        for title, value in lines(one):
            typer.echo(f"  {title:<11} {value}")


def lines(one: Facts) -> list[tuple[str, Any]]:
    """What `show` prints of one encoder."""
    fetching = f"not on this machine; it is fetched on first use, or by: hf download {one.source}"
    where = "made here, no file" if one.where is None else one.where or fetching
    unknown = "known once it is fetched"
    return [
        ("width", f"{one.width:,}" if one.width else unknown if one.where == "" else "by the channels"),
        ("tokens", one.tokens or unknown),
        ("parameters", f"{one.parameters:,}" if one.parameters is not None else unknown),
        ("licence", one.licence),
        ("files", where),
    ]


@encoders_app.command(
    "check", epilog="Example: pgm encoders check tiny\n\npgm encoders check paper --device cuda --json"
)
def check(
    name: Name,
    modality: Modality = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(help="Items a forward pass.")] = None,
    as_json: AsJson = False,
) -> None:
    """Build an encoder, fetching it if need be, and measure it on made-up items: decoded and encoded items a second."""
    from .commands import choice
    from .encoders.facts import named
    from .encoders.spec import EncoderSpec
    from .engine.rate import rate

    common: dict[str, Any] = {
        "device": choice("--device", device, ("auto", "cpu", "cuda")),
        "compute": choice("--dtype", dtype, ("auto", "float32", "bfloat16", "float16")),
        "batch_size": batch_size,
    }
    rates = [rate(EncoderSpec(modality, source, **common)) for modality, source in named(name, modality).items()]
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in rates], indent=1))
        return
    for one in rates:
        typer.echo(
            f"{one.modality:<7} {one.encoder}: {one.tokens} tokens x {one.width}, {one.encoded:,.0f} items/s in "
            f"batches of {one.batch_size}, decoded {one.decoded:,.0f}/s a thread ({one.device}, {one.compute})"
        )
