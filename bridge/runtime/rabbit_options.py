# SPDX-License-Identifier: Apache-2.0
"""Options of [oslo_messaging_rabbit]: those that connections of the bridge use, and the names of all others.

oslo.messaging itself declares them, but its import costs a process 6 MiB, and no connection of ours is its own.
"""

from typing import Final

from oslo_config import cfg

GROUP: Final = "oslo_messaging_rabbit"
USED: Final = (
    cfg.BoolOpt("ssl", default=False, help="Use TLS. The broker's certificate is always verified."),
    cfg.StrOpt(
        "ssl_ca_file", default="", help="Certificates of the authorities that sign the broker's certificate."
    ),
    cfg.StrOpt("ssl_cert_file", default="", help="Certificate of this client, for a broker that asks for one."),
    cfg.StrOpt("ssl_key_file", default="", help="Private key of this client's certificate."),
    cfg.StrOpt(
        "ssl_version",
        default="",
        help="TLSv1_2: this version only. Default: the newest version that both sides support.",
    ),
    cfg.BoolOpt(
        "ssl_enforce_hostname_verification",
        default=True,
        help="Compare the broker's host name with its certificate.",
    ),
    cfg.StrOpt("rabbit_login_method", default="PLAIN", help="PLAIN, AMQPLAIN or EXTERNAL."),
)
_NOT_USED: Final = (
    "amqp_auto_delete",
    "amqp_durable_queues",
    "conn_pool_min_size",
    "conn_pool_ttl",
    "direct_mandatory_flag",
    "enable_cancel_on_failover",
    "heartbeat_in_pthread",
    "heartbeat_rate",
    "heartbeat_timeout_threshold",
    "hostname",
    "kombu_compression",
    "kombu_failover_strategy",
    "kombu_missing_consumer_retry_timeout",
    "kombu_reconnect_delay",
    "kombu_reconnect_splay",
    "kombu_reconnect_timeout",
    "processname",
    "rabbit_ha_queues",
    "rabbit_interval_max",
    "rabbit_qos_prefetch_count",
    "rabbit_quorum_delivery_limit",
    "rabbit_quorum_max_memory_bytes",
    "rabbit_quorum_max_memory_length",
    "rabbit_quorum_queue",
    "rabbit_retry_backoff",
    "rabbit_retry_interval",
    "rabbit_stream_fanout",
    "rabbit_transient_queues_ttl",
    "rabbit_transient_quorum_queue",
    "rpc_conn_pool_size",
    "ssl_enforce_fips_mode",
    "use_queue_manager",
)


def register(conf: cfg.ConfigOpts) -> None:
    """Register the section. An option that is not used may have any value: it is only named in a warning."""
    conf.register_opts(USED, group=GROUP)
    conf.register_opts([cfg.Opt(name) for name in _NOT_USED], group=GROUP)


def unused_options(conf: cfg.ConfigOpts) -> list[str]:
    """Return the options of the section that are set, but used by no connection of the bridge."""
    if GROUP not in conf:
        return []
    return sorted(name for name in _NOT_USED if name in conf[GROUP] and is_set(conf, name))


def is_set(conf: cfg.ConfigOpts, name: str) -> bool:
    """Return True if an operator wrote the option, in any file."""
    location = conf.get_location(name, GROUP)
    return location is not None and bool(location.location.is_user_controlled)
