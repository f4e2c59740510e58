# SPDX-License-Identifier: Apache-2.0
"""From Cinder's notifications to volume-extended events, by HTTP, until each has a verdict."""
