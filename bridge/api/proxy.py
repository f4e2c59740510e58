# SPDX-License-Identifier: Apache-2.0
"""Behind a proxy: links and addresses as the proxy saw them, by oslo.middleware's http_proxy_to_wsgi.

Off unless [oslo_middleware] enable_proxy_headers_parsing says that there is a proxy which sets these headers
itself: from anybody else they would be made up.
"""

from typing import Final

from oslo_config import cfg
from oslo_middleware import http_proxy_to_wsgi

from bridge.runtime.http_server import WsgiApp

GROUP: Final = "oslo_middleware"


def behind_proxy(app: WsgiApp, conf: cfg.ConfigOpts) -> WsgiApp:
    """The application, in front of it the filter where it is switched on."""
    conf.register_opts(http_proxy_to_wsgi.OPTS, group=GROUP)
    if not conf[GROUP].enable_proxy_headers_parsing:
        return app
    wrapped: WsgiApp = http_proxy_to_wsgi.HTTPProxyToWSGI(app, conf)
    return wrapped
