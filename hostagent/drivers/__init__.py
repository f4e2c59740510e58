# SPDX-License-Identifier: Apache-2.0
"""Drivers of hypervisors: one folder each, behind the protocol in base.py. registry.py finds them."""
