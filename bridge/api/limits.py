# SPDX-License-Identifier: Apache-2.0
"""How much a request may bring, and reading no more than that."""

from http import HTTPStatus
from typing import Final

import falcon

from bridge.api.faults import fault, too_large

MAX_BODY: Final = 114688
"""Bytes of a request body, as oslo.middleware's sizelimit in front of Nova: about 780 events."""


def check_length(req: falcon.Request) -> None:
    """Refuse by its Content-Length a body that is too large; raises FaultError."""
    if (req.content_length or 0) > MAX_BODY:
        raise too_large()


def read_body(req: falcon.Request) -> bytes:
    """The whole body; b"" where there is none. Raises FaultError for one that is too large or broken off.

    A chunked body has no length: it is read up to the limit.
    """
    try:
        if req.content_length is not None:
            body = req.bounded_stream.read(req.content_length)
        elif req.env.get("wsgi.input_terminated"):
            body = req.stream.read(MAX_BODY + 1)
        else:
            return b""
    except (OSError, ValueError) as ex:  # the client went away, was silent for too long, or broke the chunking
        raise fault(HTTPStatus.BAD_REQUEST, "Malformed request body") from ex
    if len(body) > MAX_BODY:
        raise too_large()
    if len(body) < (req.content_length or 0):
        raise fault(HTTPStatus.BAD_REQUEST, "Malformed request body")
    return bytes(body)
