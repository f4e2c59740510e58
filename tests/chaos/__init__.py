# SPDX-License-Identifier: Apache-2.0
"""tools/chaos: every part killed, stopped and restarted under load, and then Cinder's sizes beside every disk's."""
