# SPDX-License-Identifier: Apache-2.0
"""Endpoints in the configuration: the options of a group that names one, and the client of that group."""

import copy
from typing import Final, Protocol

from keystoneauth1 import exceptions as ks_errors
from keystoneauth1 import loading as ks
from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions.auth_plugins import AuthPluginException
from oslo_config import cfg

from bridge.core.errors import ConfigError
from bridge.runtime.rest import DEFAULT_TIMEOUT, LARGEST_ANSWER, RestClient, bounded

_PLUGINS: Final = ("password", "v3applicationcredential", "http_basic", "none")


class EndpointOpts(Protocol):
    """The source of the options of an endpoint."""

    def __call__(self, service_type: str, *, timeout: float) -> list[cfg.Opt]:
        """Return the options of a group that names an endpoint."""


def endpoint_opts(service_type: str, *, timeout: float) -> list[cfg.Opt]:
    """Return the options of a group that names an endpoint: auth_type, TLS, region, endpoint_override.

    `timeout` is the default of the seconds a whole request may take.
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
    """Return the same with the options of the usual auth plugins, for the sample configuration."""
    opts = {opt.dest: opt for opt in endpoint_opts(service_type, timeout=timeout)}
    for plugin in _PLUGINS:
        for opt in ks.get_auth_plugin_conf_options(plugin):
            opts.setdefault(opt.dest, opt)
    return list(opts.values())


def open_adapter(conf: cfg.ConfigOpts, group: str, *, user_agent: str) -> Adapter:
    """Return the adapter of one group. Contacts nothing; raises ConfigError for options that cannot be used."""
    try:
        auth = ks.load_auth_from_conf_options(conf, group)
        session = ks.load_session_from_conf_options(conf, group, auth=auth)
        bounded(session, conf[group].timeout or DEFAULT_TIMEOUT)
        return ks.load_adapter_from_conf_options(
            conf, group, session=session, auth=auth, user_agent=user_agent, connect_retries=0, status_code_retries=0
        )
    except (ks_errors.ClientException, AuthPluginException, cfg.Error) as ex:
        raise ConfigError(f"[{group}] cannot be used: {' '.join(str(ex).split())}") from ex


def open_client(
    conf: cfg.ConfigOpts, group: str, *, user_agent: str, largest: int = LARGEST_ANSWER, once_more: bool = True
) -> RestClient:
    """Return the client of one group. Contacts nothing; raises ConfigError."""
    return RestClient(
        open_adapter(conf, group, user_agent=user_agent),
        timeout=conf[group].timeout or DEFAULT_TIMEOUT,
        group=group,
        largest=largest,
        once_more=once_more,
    )
