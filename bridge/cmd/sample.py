# SPDX-License-Identifier: Apache-2.0
"""Sample configuration files, one per part and deployment, with a broker user for each part."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Deployment(StrEnum):
    """Ways to install the bridge."""

    STAND_ALONE = "stand-alone"  # Cinder and libvirt hosts, no Nova
    BESIDE_NOVA = "beside-nova"  # the listener posts to Nova, whose compute does the work on the host
    ALL_IN_ONE = "all-in-one"  # one node, one process


_NOTIFICATIONS: Final = """\
[notifications]
# Cinder's notification bus: the transport_url of cinder.conf
transport_url = rabbit://cinder:PASSWORD@broker:5672/
"""
_BUS: Final = """\
[bus]
# our own virtual host; extend-bridge-manage broker-commands makes this user
transport_url = rabbit://extend-bridge-{user}:PASSWORD@broker:5672/extend_bridge
"""
_KEYSTONE: Final = """\
auth_type = password
auth_url = https://keystone/v3
username = extend-bridge
password = PASSWORD
project_name = service
user_domain_name = Default
project_domain_name = Default
"""
_CINDER: Final = f"""\
[cinder]
# its user needs the role admin; it only reads
{_KEYSTONE}"""
_JOURNAL: Final = """\
[journal]
# or postgresql+psycopg://bridge:PASSWORD@database/extend_bridge
connection = mysql+pymysql://bridge:PASSWORD@database/extend_bridge
"""
_SQLITE: Final = """\
[journal]
connection = sqlite:////var/lib/extend-bridge/journal.sqlite3
"""
_AUDIT: Final = """\
[audit]
file = /var/log/extend-bridge/audit.log
"""
_TO_OUR_API: Final = """\
[endpoint]
# the API on the same node
auth_type = none
endpoint_override = http://127.0.0.1:8786/v2.1
"""
_TO_NOVA: Final = f"""\
[endpoint]
# its user needs the role admin: with `service` alone Nova finds no server of other projects
{_KEYSTONE}service_type = compute
"""
_API: Final = """\
[api]
# answers on loopback only, because no caller is asked who it is; keystone and http_basic open it to others
auth_strategy = noauth
"""
_ENGINE_OBSERVES: Final = f"""\
[engine]
# looks whether guests have their size, and tells Nova again; changes nothing itself
mode = observe

[nova]
{_KEYSTONE}"""
_HOST: Final = """\
[hostagent]
# unique; the name by which Cinder and Nova know this host
host = compute-1
libvirt_uri = qemu:///system
{more}"""

_LOOKS_ONLY: Final = "# looks only: nova-compute extends\nread_only = true\n"
_SAMPLES: Final[Mapping[tuple[Deployment, str], tuple[str, ...]]] = {
    (Deployment.STAND_ALONE, "listener"): (_NOTIFICATIONS, _BUS, _TO_OUR_API, _AUDIT),
    (Deployment.STAND_ALONE, "api"): (_API, _JOURNAL, _AUDIT),
    (Deployment.STAND_ALONE, "engine"): (_BUS, _JOURNAL, _CINDER, _AUDIT),
    (Deployment.STAND_ALONE, "hostagent"): (_BUS, _HOST.format(more="")),
    (Deployment.BESIDE_NOVA, "listener"): (_NOTIFICATIONS, _BUS, _TO_NOVA, _AUDIT),
    (Deployment.BESIDE_NOVA, "engine"): (_BUS, _JOURNAL, _CINDER, _ENGINE_OBSERVES, _AUDIT),
    (Deployment.BESIDE_NOVA, "hostagent"): (
        _BUS,
        _HOST.format(more="# looks only: nova-compute extends\nread_only = true\n"),
    ),
    (Deployment.ALL_IN_ONE, "all-in-one"): (_NOTIFICATIONS, _SQLITE, _CINDER, _HOST.format(more=""), _AUDIT),
}
NAMESPACES: Final = (
    "extend-bridge.common", "extend-bridge.api", "extend-bridge.engine", "extend-bridge.listener",
    "extend-bridge.hostagent", "oslo.log", "keystonemiddleware.auth_token",
    "oslo.middleware.http_proxy_to_wsgi", "oslo.policy",
)  # fmt: skip
"""The namespaces of etc/extend-bridge/config-generator.conf."""
PARTS: Final = ("listener", "api", "engine", "hostagent", "all-in-one")


def sample(part: str, deployment: Deployment) -> str:
    """Return the sample file of one part. Raises ValueError when the part does not run in that deployment."""
    sections = _SAMPLES.get((deployment, part))
    if sections is None:
        parts = ", ".join(name for where, name in _SAMPLES if where is deployment)
        raise ValueError(f"the deployment {deployment.value} has no {part}: its parts are {parts}")
    head = f"# Extend Bridge: {part}, deployment {deployment.value}. Replace each PASSWORD and host name.\n"
    user = "hostagent-compute-1" if part == "hostagent" else part
    return head + "\n" + "\n".join(section.format(user=user) for section in sections)
