"""`pgm params`: the head's parameter counts beside the paper's Table 5."""

import json
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from ...cache.errors import UserError

EXAMPLE = "Example:  pgm params --modality text=768 --modality vision=768 --share-partitioner"


def widths_of(modalities: list[str]) -> dict[str, int]:
    """{"text": 768} from "text" or "text=768". Raises UserError for anything else."""
    widths = {}
    for given in modalities:
        name, _, width = given.partition("=")
        if not name or (width and not width.isdecimal()) or given.endswith("="):
            raise UserError(f"--modality {given!r} is not NAME or NAME=WIDTH, for example text=768.")
        if name in widths:
            raise UserError(f"--modality names {name!r} twice.")
        widths[name] = int(width or 768)
    return widths


def params(
    modality: Annotated[
        list[str] | None, typer.Option(help="NAME or NAME=WIDTH of its features; repeat for each [text, vision].")
    ] = None,
    preset: Annotated[str, typer.Option(help="paper (width 768) or small (width 64).")] = "paper",
    decoder: Annotated[str, typer.Option(help="cross (one cross-attention block) or ffn.")] = "cross",
    share_partitioner: Annotated[
        bool, typer.Option(help="One partitioner for all modalities, as Table 5 counts.")
    ] = False,
    classes: Annotated[int, typer.Option(help="Outputs of the fusion head.")] = 101,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the trainable parameters beside Table 5 of the paper, and what the paper did not count."""
    from ..head.config import PgMConfig
    from ..head.fusion import FusionConfig
    from ..head.parameters import parameter_table, parameter_text
    from ..head.switches import choice
    from ..protocol import PRESETS

    choice("--preset", preset, PRESETS)
    choice("--decoder", decoder, ("cross", "ffn"))
    which: Literal["cross", "ffn"] = "ffn" if decoder == "ffn" else "cross"
    widths = widths_of(modality or ["text", "vision"])
    build, fuse = (PgMConfig.paper, FusionConfig.paper) if preset == "paper" else (PgMConfig.small, FusionConfig.small)
    config = build(widths, decoder=which, share_partitioner=share_partitioner)
    table = parameter_table(config, fuse(tuple(widths), classes))
    if as_json:
        print(json.dumps(asdict(table) | {"difference_percent": round(table.difference, 3)}))
    else:
        print(parameter_text(table))
