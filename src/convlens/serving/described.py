"""The prediction server described: as OpenAPI, and as a page for people."""

import html
import json
from typing import Any

from convlens.serving.predictors import Predictor
from convlens.text import shown

_PICTURE = {
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    "multipart/form-data": {
        "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
    },
}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_PARAMETERS = [
    {"name": name, "in": "query", "description": words, "schema": schema}
    for name, words, schema in (
        ("top", "How many classes to give.", {"type": "integer", "minimum": 1, "default": 3}),
        ("min_probability", "Less probable answers are uncertain.", _SHARE | {"default": 0}),
    )
]
_ERRORS = {
    "400": "a parameter or form that cannot be read",
    "401": "no token, or another",
    "408": "the request took too long",
    "413": "larger than is taken",
    "422": "no picture, or one that cannot be read",
    "503": "too many pictures at once: try again after Retry-After",
}


def openapi(name: str, predictor: Predictor) -> dict[str, Any]:
    """The description as OpenAPI 3.1."""
    label = {"type": "string", "enum": list(predictor.class_names)}
    top = {"type": "object", "properties": {"label": label, "probability": _SHARE}}
    prediction = {
        "type": "object",
        "required": ["label", "probability", "top", "row"],
        "properties": {
            "label": label,
            "probability": _SHARE,
            "top": {"type": "array", "items": top},
            "unfamiliar": {"type": "boolean", "description": "unlike the training images; absent: it cannot tell"},
            "uncertain": {"type": "boolean", "description": "no answer, for what is promised or was asked for"},
            "remark": {"type": "string"},
            "row": {"type": "string", "description": "short hashes of the input, the model and the answer"},
        },
    }
    error = {"type": "object", "properties": {"error": {"type": "string"}}}
    problems = {
        status: {"description": words, "content": {"application/json": {"schema": error}}}
        for status, words in _ERRORS.items()
    }

    def post(summary: str, body: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
        answer = {"description": "the answer", "content": {"application/json": {"schema": schema}}}
        return {
            "post": {
                "summary": summary,
                "parameters": _PARAMETERS,
                "requestBody": {"required": True, "content": body},
                "responses": {"200": answer} | problems,
                "security": [{"token": []}],
            }
        }

    def get(summary: str) -> dict[str, Any]:
        return {"get": {"summary": summary, "responses": {"200": {"description": "so"}}}}

    reference = {"$ref": "#/components/schemas/Prediction"}
    named = {"allOf": [reference, {"type": "object", "properties": {"name": {"type": "string"}}}]}
    many = {"type": "object", "properties": {"predictions": {"type": "array", "items": {"anyOf": [named, error]}}}}
    form = {"multipart/form-data": _PICTURE["multipart/form-data"]}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"convlens: {shown(name, 80)}", "version": predictor.model_sha256[:12]},
        "paths": {
            "/predict": post("Classify one picture: the body itself, or a form's file.", _PICTURE, reference),
            "/predict/batch": post("Classify the files of a form, in order.", form, many),
            "/healthz": get("The process lives."),
            "/readyz": get("It answers."),
            "/metrics": get("For Prometheus."),
        },
        "components": {
            "schemas": {"Prediction": prediction},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<h1>{title}</h1>
<p>{classes}</p>
{promise}<table>
{rows}
</table>
<h2>Ask it</h2>
<pre>curl --data-binary @picture.jpg -H "Authorization: Bearer $TOKEN" http://HOST:PORT/predict
curl -F file=@a.jpg -F file=@b.jpg -H "Authorization: Bearer $TOKEN" http://HOST:PORT/predict/batch</pre>
<h2>An answer</h2>
<pre>{example}</pre>
<p><a href="/openapi.json">openapi.json</a></p>
</html>
"""


def page(name: str, predictor: Predictor) -> str:
    """The same for people, without style: the answers' policy allows none."""
    paths = openapi(name, predictor)["paths"]
    rows = [
        f"<tr><th align='left'><code>{kind.upper()} {path}</code></th><td>{html.escape(what['summary'])}</td></tr>"
        for path, kinds in paths.items()
        for kind, what in kinds.items()
    ]
    first = predictor.class_names[0]
    example = {"label": first, "probability": 0.98, "top": [{"label": first, "probability": 0.98}]}
    example |= {"unfamiliar": False, "row": "3f0a5c1e9b7d-9b1cfa0e4d21-77de01b2c3d4"}
    classes = ", ".join(shown(one, 40) for one in predictor.class_names[:50])
    return _PAGE.format(
        title=html.escape(f"convlens: {shown(name, 80)}"),
        classes=html.escape(f"{len(predictor.class_names):,} classes: {classes}"),
        promise=f"<p>{html.escape(f'It promises: {predictor.promise}.')}</p>\n" if predictor.promise else "",
        rows="\n".join(rows),
        example=html.escape(json.dumps(example, indent=2, ensure_ascii=False)),
    )
