# SPDX-License-Identifier: Apache-2.0
"""A paste filter in the place of keystonemiddleware: the lab's tokens by heart. Imported by Nova's own python."""

from typing import Any

WHO = {"<admin>": ("admin,service", "89a3d909ccda438da2cab32ecf0e57cd"), "<service>": ("service", "b" * 32),
       "<demo>": ("member", "c" * 32)}  # fmt: skip
REFUSED = (
    b'{"error": {"code": 401, "title": "Unauthorized", '
    b'"message": "The request you have made requires authentication."}}'
)


def filter_factory(_global: object, **_local: object) -> Any:
    """paste.deploy's way in."""
    return lambda app: lambda environ, start: call(app, environ, start)


def call(app: Any, environ: dict[str, Any], start: Any) -> Any:
    """Sets what keystonemiddleware sets, or refuses as it does."""
    known = WHO.get(environ.get("HTTP_X_AUTH_TOKEN", ""))
    if known is None:
        challenge = ("WWW-Authenticate", 'Keystone uri="http://127.0.0.1:5000/v3"')
        length = ("Content-Length", str(len(REFUSED)))
        start("401 Unauthorized", [("Content-Type", "application/json"), length, challenge])
        return [REFUSED]
    roles, project = known
    environ.update(
        HTTP_X_USER_ID="u" * 32, HTTP_X_PROJECT_ID=project, HTTP_X_ROLES=roles, HTTP_X_IDENTITY_STATUS="Confirmed"
    )
    return app(environ, start)
