# SPDX-License-Identifier: Apache-2.0
"""The listener: turns Cinder's notifications into volume-extended events, sent by HTTP until each has a verdict."""
