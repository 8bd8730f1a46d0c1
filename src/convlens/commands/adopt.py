"""adopt: weights that others trained, as a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from convlens.commands import terminal
from convlens.commands.options import OUTPUT, Json, flag
from convlens.render import tables

_MODEL = "Model"
_WEIGHTS = "A state dict: .safetensors, or .pth, of which nothing is run."
_AS = "What they are: resnet18, resnet50, mobilenetv2, efficientnet-lite0, -lite1, -lite2."


def adopt(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help=_WEIGHTS)],
    architecture: Annotated[str, flag(_AS, _MODEL, "--as", metavar="NAME")],
    mean: Annotated[
        str | None, flag("What is taken from R, G and B, in 0..1 or 0..255; as their source has it.", _MODEL)
    ] = None,
    std: Annotated[str | None, flag("What that is divided by.", _MODEL)] = None,
    crop: Annotated[
        float | None, flag("Share of the sides that is cut out; ImageNet's protocol: 0.875.", _MODEL, show_default="1")
    ] = None,
    framing: Annotated[str, flag("How pictures are fitted: crop, pad or stretch.", _MODEL)] = "crop",
    size: Annotated[int | None, flag("Pixels a side.", _MODEL, show_default="the architecture's")] = None,
    classes: Annotated[
        str | None,
        flag(
            "Names of the classes, a file with one a line.", _MODEL, metavar="FILE", show_default="ImageNet's, of 1,000"
        ),
    ] = None,
    trained_on: Annotated[str | None, flag("Which pictures they were trained on, for the card.", _MODEL)] = None,
    licence: Annotated[str | None, flag("Their licence, for the card.", _MODEL)] = None,
    out: Annotated[str | None, flag("The model file: .safetensors.", OUTPUT, show_default="beside the weights")] = None,
    json: Json = False,
) -> None:
    """Make a model of weights that others trained."""
    terminal.loading()
    import convlens

    terminal.check_new_file(out, "--out", (".safetensors",))
    options: dict[str, Any] = {"mean": mean, "std": std, "crop": crop, "framing": framing, "size": size}
    options |= {"classes": classes, "trained_on": trained_on, "licence": licence}
    path = convlens.adopt(weights, architecture=architecture, out=out, **options)
    card = convlens.load(path).card
    if json:
        tables.print_json({"model": str(path)} | card.to_json())
        return
    origin, spec = card.origin, card.input_spec
    assert origin is not None
    tables.print_rows(
        [
            ("model", terminal.as_argument(path)),
            ("weights", f"{origin.source}, SHA-256 {origin.sha256[:16]}"),
            ("input", f"{spec.height}×{spec.width}×{spec.channels}, framing {spec.framing}, crop {spec.crop_frac:g}"),
            ("mean, std", f"{', '.join(f'{m:g}' for m in spec.mean)}; {', '.join(f'{s:g}' for s in spec.std)} of 255"),
            ("classes", f"{len(card.class_names):,}"),
            ("trained on", origin.trained_on or "not said"),
            ("licence", origin.licence or "not said"),
        ]
    )
