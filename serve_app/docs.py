"""`/api/docs`: the contract as one plain page, made from openapi.json here; no script, nothing from another host."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastapi import APIRouter, Request, Response

router = APIRouter(include_in_schema=False)
_METHODS: Final = ("get", "post", "put", "patch", "delete")
_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
summary{cursor:pointer;padding:.3rem 0}summary code{font-size:1rem}details{border-bottom:1px solid #8884}
details>div{padding:0 0 1rem 1rem}pre{overflow:auto;background:#8881;padding:.6rem}.m{display:inline-block;width:4.5rem;font-weight:600}
td,th{text-align:left;padding:.15rem .8rem .15rem 0;vertical-align:top}
"""


@router.get("/api/docs")
async def documentation(request: Request) -> Response:
    """The page."""
    return Response(render(request.app.openapi()), media_type="text/html; charset=utf-8")


def render(schema: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document."""
    info = schema["info"]
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(info["title"])} API</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>',
        f"<h1>{_text(info['title'])} API {_text(info['version'])}</h1><p>{_text(info['description'])}</p>",
        '<p><a href="/api/openapi.json">openapi.json</a></p>',
    ]
    by_tag: dict[str, list[str]] = {}
    for path, operations in schema["paths"].items():
        for method in _METHODS:
            if method in operations:
                operation = operations[method]
                by_tag.setdefault(operation.get("tags", ["other"])[0], []).append(_operation(path, method, operation))
    for tag, operations in by_tag.items():
        parts += [f"<h2>{_text(tag)}</h2>", *operations]
    parts.append("<h2>shapes</h2>")
    parts += [_shape(name, shape) for name, shape in schema.get("components", {}).get("schemas", {}).items()]
    return "".join(parts)


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    inside = [f"<p>{_text(operation.get('description', ''))}</p>"]
    rows = "".join(
        f"<tr><td><code>{_text(p['name'])}</code><td>{_text(p['in'])}<td>{_type(p['schema'])}<td>{_text(p.get('description', ''))}"
        for p in operation.get("parameters", [])
    )
    if rows:
        inside.append(f"<table>{rows}</table>")
    body = operation.get("requestBody", {}).get("content", {})
    inside += [f"<p>Body ({_text(media)}): {_type(content.get('schema', {}))}</p>" for media, content in body.items()]
    inside += [f"<p>{_text(status)}: {' '.join(_answer(answer))}</p>" for status, answer in operation["responses"].items()]
    summary = f'<summary><span class="m">{method.upper()}</span><code>{_text(path)}</code></summary>'
    return f"<details>{summary}<div>{''.join(inside)}</div></details>"


def _answer(answer: Mapping[str, Any]) -> Iterator[str]:
    yield _text(answer.get("description", ""))
    for media, content in answer.get("content", {}).items():
        if "schema" in content:
            yield f"({_text(media)}) {_type(content['schema'])}"


def _shape(name: str, shape: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{_text(field)}</code>{'' if field in shape.get('required', []) else '?'}<td>{_type(schema)}"
        f"<td>{_text(schema.get('description', ''))}"
        for field, schema in shape.get("properties", {}).items()
    )
    shown = f"<table>{rows}</table>" if rows else f"<pre>{_text(json.dumps(shape.get('enum', {})))}</pre>"
    described = f"<p>{_text(shape.get('description', ''))}</p>"
    return f'<details id="{_text(name)}"><summary><code>{_text(name)}</code></summary><div>{described}{shown}</div></details>'


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = _text(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return _text(str(schema.get("format") or schema.get("const") or schema.get("type") or "any"))


def _text(text: str) -> str:
    return html.escape(str(text))
