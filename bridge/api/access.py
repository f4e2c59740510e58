# SPDX-License-Identifier: Apache-2.0
"""One line per request: which, who, what, how long.

Never a token, a body or a query, and nothing of the caller's unescaped.
"""

import logging
import time
from typing import Final

import falcon

LOG = logging.getLogger(__name__)

_MAX_TEXT: Final = 200


class AccessLog:
    """falcon middleware; the first, so that refusals of the others are logged as well."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Note the time."""
        req.context.started = time.monotonic()

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _ok: bool) -> None:
        """Write the line."""
        context = req.context
        who = getattr(context, "caller", None)
        LOG.info(
            'request %s (%s) from %s user %s: "%s %s" %s in %.1f ms',
            context.request_id,
            context.global_request_id or "-",
            shown(req.remote_addr or "-"),
            shown(who.user) if who is not None else "-",
            shown(req.method),
            shown(req.path),
            resp.status_code,
            (time.monotonic() - context.started) * 1e3,
        )


def shown(text: str) -> str:
    """A text of the caller's as it may stand in a log line: printable ASCII, no quotes, at most 200 characters."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text[:_MAX_TEXT]
    return text[:_MAX_TEXT].encode("unicode_escape").decode().replace('"', '\\"')[:_MAX_TEXT]
