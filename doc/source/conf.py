# SPDX-License-Identifier: Apache-2.0
"""Sphinx: the configuration reference is made from the options themselves, so that it cannot drift."""

import sys
from pathlib import Path

import bridge.runtime.threads  # noqa: F401 - before the option modules import oslo.messaging

project = "Extend Bridge"
copyright = "2026, the Extend Bridge developers"  # noqa: A001 - Sphinx's name
sys.path.insert(0, str(Path(__file__).parent / "_ext"))
smartquotes_action = "qe"  # two dashes are an option of a command
extensions = [
    "cliff.sphinxext",
    "differences",
    "observed",
    "openstackdocstheme",
    "oslo_config.sphinxext",
    "oslo_config.sphinxconfiggen",
    "oslo_policy.sphinxext",
    "oslo_policy.sphinxpolicygen",
]
html_theme = "openstackdocs"
openstackdocs_auto_name = False
openstackdocs_bug_project = ""
config_generator_config_file = [("../../etc/extend-bridge/config-generator.conf", "_static/extend-bridge")]
policy_generator_config_file = [("../../etc/extend-bridge/policy-generator.conf", "_static/extend-bridge")]
root_doc = "index"
