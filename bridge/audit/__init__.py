# SPDX-License-Identifier: Apache-2.0
"""What happened, from audit logs alone: traces, reports, checks. Needs no database, no broker, no configuration."""
