"""The doctor's page: the findings with their pictures, one HTML file that needs nothing beside it.

Owns the views and what of many is shown; the layout is `page.html`. Names are escaped by the template engine.
"""

from __future__ import annotations

import base64
import io
from importlib.resources import files as resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from convlens.data.image.decode import quiet_pillow, read_bytes
from convlens.data.image.framing import InputSpec, picture
from convlens.errors import ImageError
from convlens.text import shown

if TYPE_CHECKING:
    from convlens.doctor.findings import Finding, Findings, Sample

_SETS, _PER_SET, _VIEW_PX = 60, 8, 112  # of a finding that are drawn; the rest are counted


def as_html(findings: Findings) -> str:
    """The page, UTF-8."""
    from jinja2 import Environment

    template = resources("convlens.doctor").joinpath("page.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    with quiet_pillow():
        shown_findings = [_with_views(finding, findings) for finding in findings.findings]
    return page.render(
        name=shown(findings.name, 200),
        location=shown(findings.location, 400),
        facts=findings.facts,
        findings=shown_findings,
        falsifies=findings.falsifies,
    )


def _with_views(finding: Finding, findings: Findings) -> dict[str, Any]:
    rows = []
    for number, samples in enumerate(finding.sets[:_SETS]):
        detail = finding.details[number] if number < len(finding.details) else ""
        views = [
            {"name": shown(s.name, 120), "label": shown(s.label, 40), "split": s.split, "src": _view(s, findings)}
            for s in samples[:_PER_SET]
        ]
        rows.append({"views": views, "detail": detail, "more": max(0, len(samples) - _PER_SET)})
    return {
        "severity": finding.severity,
        "title": finding.title,
        "remedy": finding.remedy,
        "rows": rows,
        "more": max(0, len(finding.sets) - _SETS),
    }


def _view(sample: Sample, findings: Findings) -> str:
    """A small view of a sample as a data URL; empty where there is none."""
    source = findings.views.get(-1 if sample.picture is None else sample.picture)
    if source is None:
        return ""
    try:
        if isinstance(source, Path):
            pixels = picture(read_bytes(source), InputSpec(_VIEW_PX, _VIEW_PX, 3, "pad"))
            image = Image.fromarray(pixels)
        else:
            flat = source[:, :, 0] if source.shape[2] == 1 else source
            times = max(1, _VIEW_PX // max(flat.shape[:2]))
            image = Image.fromarray(np.ascontiguousarray(flat.repeat(times, 0).repeat(times, 1)))
    except ImageError:
        return ""
    written = io.BytesIO()
    image.convert("RGB").save(written, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode("ascii")
