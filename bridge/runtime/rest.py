# SPDX-License-Identifier: Apache-2.0
"""keystoneauth adapters from configuration: one way to reach any OpenStack endpoint, with or without Keystone.

The libraries' own retries are off: every hop has one retry policy, and it is ours.
"""

import copy
from typing import Final

from keystoneauth1 import adapter
from keystoneauth1 import loading as ks
from keystoneauth1.exceptions import ClientException
from keystoneauth1.exceptions.auth_plugins import AuthPluginException
from oslo_config import cfg

from bridge.core.errors import ConfigError

_PLUGINS: Final = ("password", "v3applicationcredential", "http_basic", "none")


def endpoint_opts(service_type: str, *, timeout: float) -> list[cfg.Opt]:
    """Options of a group that names an endpoint: auth_type, TLS, region, endpoint_override.

    `timeout` in seconds is the default of how long an answer may take.
    """
    opts = copy.deepcopy(
        [
            *ks.get_auth_common_conf_options(),
            *ks.get_session_conf_options(),
            *ks.get_adapter_conf_options(include_deprecated=False),
        ]
    )
    cfg.set_defaults(opts, auth_type="none", service_type=service_type, timeout=timeout)
    return opts


def endpoint_sample_opts(service_type: str, *, timeout: float) -> list[cfg.Opt]:
    """The same with the options of the usual auth plugins, for the sample configuration."""
    opts = {opt.dest: opt for opt in endpoint_opts(service_type, timeout=timeout)}
    for plugin in _PLUGINS:
        for opt in ks.get_auth_plugin_conf_options(plugin):
            opts.setdefault(opt.dest, opt)
    return list(opts.values())


def open_adapter(conf: cfg.ConfigOpts, group: str, *, user_agent: str) -> adapter.Adapter:
    """The adapter of one group. Nothing is contacted yet; raises ConfigError for options nobody can use."""
    try:
        auth = ks.load_auth_from_conf_options(conf, group)
        session = ks.load_session_from_conf_options(conf, group, auth=auth)
        return ks.load_adapter_from_conf_options(
            conf, group, session=session, auth=auth, user_agent=user_agent, connect_retries=0, status_code_retries=0
        )
    except (ClientException, AuthPluginException, cfg.Error) as ex:
        raise ConfigError(f"[{group}] cannot be used: {' '.join(str(ex).split())}") from ex
