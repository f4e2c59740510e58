# SPDX-License-Identifier: Apache-2.0
"""tools/attack: strangers and liars against running daemons, beside callers and hosts that do no wrong."""
