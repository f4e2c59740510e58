# SPDX-License-Identifier: Apache-2.0
"""Traces, reports and checks from audit logs alone, without a database, a broker or a configuration."""
