# SPDX-License-Identifier: Apache-2.0
"""The permission of a caller: one oslo.policy rule, with Nova's name and Nova's current default.

Source: nova/policies/server_external_events.py and base.py (34.0): rule:service_or_admin, project scope. The inner
rules have Nova's names as well, because an operator's overrides must mean the same here.
"""

import logging
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import yaml
from cachetools import TTLCache
from oslo_config import cfg
from oslo_policy import policy as oslo_policy

from bridge.api.faults import fault
from bridge.api.identity import Identity
from bridge.api.request import shown
from bridge.core.errors import ConfigError

LOG = logging.getLogger(__name__)

CREATE: Final = "os_compute_api:os-server-external-events:create"
_RETRY_AFTER: Final = 30
_KEEP: Final = 1.0  # seconds
_MAX_ALLOWED: Final = 1000
_BROKEN: Final = (OSError, ValueError, yaml.YAMLError, cfg.Error)

_RULES: Final = (
    oslo_policy.RuleDefault("context_is_admin", "role:admin", "Who counts as an administrator."),
    oslo_policy.RuleDefault("admin_api", "rule:context_is_admin", "Administrators, by Nova's name for them."),
    oslo_policy.RuleDefault("service_api", "role:service", "Other services of the cloud, such as Cinder."),
    oslo_policy.RuleDefault(
        "service_or_admin", "rule:service_api or rule:admin_api", "Other services and administrators."
    ),
    oslo_policy.DocumentedRuleDefault(
        name=CREATE,
        check_str="rule:service_or_admin",
        description="Send external events. A token with only the role `service` is enough, and sees every server.",
        operations=[{"method": "POST", "path": "/os-server-external-events"}],
        scope_types=["project"],
    ),
)


class OsloPolicy:
    """The rules with the overrides of [oslo_policy] policy_file, which is read again after a change."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Load the rules; raises ConfigError for a policy file that cannot be used."""
        self._enforcer = enforcer(conf)
        self._lock = threading.Lock()
        self._allowed: TTLCache[Identity, None] = TTLCache(_MAX_ALLOWED, _KEEP, timer=_now)
        try:
            self._enforcer.load_rules()
            self._enforcer.check_rules(raise_on_violation=True)
        except (*_BROKEN, oslo_policy.InvalidDefinitionError) as ex:
            raise ConfigError(f"[oslo_policy] policy_file: {' '.join(str(ex).split())}") from ex

    def check(self, who: Identity) -> None:
        """Raise FaultError 403 in Nova's words; 503 while the policy file cannot be read.

        An allowed caller is not checked again for a second. oslo.policy inspects its checks' signatures and its
        files each time, which costs half as much as taking an event.
        """
        with self._lock:
            if who in self._allowed:
                return
        self._decide(who)
        with self._lock:
            self._allowed[who] = None

    def _decide(self, who: Identity) -> None:
        creds = {
            "user_id": who.user,
            "project_id": who.project,
            "domain_id": who.domain,
            "system": who.system,
            "system_scope": "all" if who.system else None,
            "roles": sorted(who.roles),
        }
        try:
            creds["is_admin"] = self._enforcer.authorize("context_is_admin", {}, creds)
            allowed = self._enforcer.authorize(CREATE, {"project_id": who.project, "user_id": who.user}, creds)
        except _BROKEN as ex:
            LOG.error("the policy file cannot be used, every request is answered 503: %s", ex)  # noqa: TRY400
            raise fault(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The policy cannot be read now. Please try again.",
                {"Retry-After": str(_RETRY_AFTER)},
            ) from ex
        if not allowed:
            LOG.warning(
                "answered 403 to user %s with the roles %s: %s",
                shown(who.user),
                shown(", ".join(sorted(who.roles)) or "none"),
                self._hint(who),
            )
            raise fault(HTTPStatus.FORBIDDEN, f"Policy doesn't allow {CREATE} to be performed.")

    def _hint(self, who: Identity) -> str:
        """Return the cause of this refusal, for an operator."""
        overridden = sorted(rule.name for rule in _RULES if rule.name in self._enforcer.file_rules)
        if overridden:
            return f"the policy file {self._enforcer.policy_path} has rules of its own for {', '.join(overridden)}"
        if who.project is None:
            return "the token is not scoped to a project"
        return "the role service or admin is missing, and no policy file says otherwise"


def _now() -> float:
    return time.monotonic()


def enforcer(conf: cfg.ConfigOpts | None = None) -> oslo_policy.Enforcer:
    """Return an enforcer with our rules; without `conf`, an enforcer for oslo.policy's own tools."""
    if conf is None and getattr(cfg.CONF, "config_file", None):
        conf = cfg.CONF  # the configuration that oslopolicy-validator --config-file FILE reads
    elif conf is None:
        conf = cfg.ConfigOpts()
        conf([], project="extend-bridge")
    made = oslo_policy.Enforcer(conf)
    made.register_defaults(list_rules())
    return made


def list_rules() -> Sequence[oslo_policy.RuleDefault]:
    """Return the rules for oslopolicy-sample-generator and the docs."""
    return _RULES
