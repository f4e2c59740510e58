# SPDX-License-Identifier: Apache-2.0
"""Requests and answers beside bridge/api/openapi.yaml: what of them is not as it says."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jsonschema
import yaml

import bridge.api
from bridge.http.server import StartResponse, WsgiApp

PATH: Final = Path(bridge.api.__file__).parent / "openapi.yaml"
_REDIRECTED: Final = {"/v2.1": "/v2.1/"}


class Document:
    """The OpenAPI document."""

    def __init__(self) -> None:
        self.whole: dict[str, Any] = yaml.safe_load(PATH.read_text())

    def problems(
        self, method: str, path: str, status: int, headers: Iterable[tuple[str, str]], body: bytes
    ) -> Iterator[str]:
        """One sentence for each thing about an answer that does not stand in the document."""
        operation = self._operation(method, _REDIRECTED.get(path, path))
        if operation is None:
            return
        described = self._followed(operation["responses"].get(str(status)))
        if described is None:
            yield f"{method} {path}: {status} is no answer of the document's"
            return
        sent: dict[str, list[str]] = {}
        for name, value in headers:
            sent.setdefault(name.lower(), []).append(value)
        for name, header in described.get("headers", {}).items():
            yield from self._header(name, self._followed(header), sent.get(name.lower(), []))
        kind = sent.get("content-type", [""])[0].partition(";")[0]
        media = described.get("content", {}).get(kind)
        if media is None:
            yield f"{method} {path}: {status} in {kind or 'no type'}"
        else:
            yield from self._schema(media["schema"], json.loads(body))

    def accepts_request(self, method: str, path: str, body: object) -> bool:
        """Whether the schema of the operation's request accepts this body."""
        operation = self._operation(method, path)
        assert operation is not None
        return not list(self._schema(operation["requestBody"]["content"]["application/json"]["schema"], body))

    def _operation(self, method: str, path: str) -> Mapping[str, Any] | None:
        for template, item in self.whole["paths"].items():
            pattern = re.sub(r"\\{[a-z_]+\\}", "[0-9a-f-]+", re.escape(template))
            if re.fullmatch(pattern, path):
                found: Mapping[str, Any] | None = item.get(method.lower())
                return found
        return None

    def _header(self, name: str, header: Any, values: list[str]) -> Iterator[str]:
        if not values and header.get("required"):
            yield f"header {name} is absent"
        for value in values:
            yield from self._schema(header["schema"], value)

    def _schema(self, schema: Mapping[str, Any], value: object) -> Iterator[str]:
        whole = {**schema, "components": self.whole["components"]}
        formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
        for error in jsonschema.Draft202012Validator(whole, format_checker=formats).iter_errors(value):
            yield f"{error.json_path}: {error.message}"

    def _followed(self, described: Any) -> Any:
        if isinstance(described, dict) and "$ref" in described:
            node: Any = self.whole
            for key in described["$ref"].removeprefix("#/").split("/"):
                node = node[key]
            return node
        return described


def checked(app: WsgiApp, document: Document, problems: list[str]) -> WsgiApp:
    """The application; what it answers otherwise than documented is added to `problems`."""

    def watched(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        seen: list[tuple[int, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            seen.append((int(status[:3]), headers))
            return start_response(status, headers, *rest)

        body = b"".join(app(environ, start))
        ((status, headers),) = seen
        problems.extend(document.problems(method, path, status, headers, body))
        return [body]

    return watched
