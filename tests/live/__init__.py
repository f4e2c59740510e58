# SPDX-License-Identifier: Apache-2.0
"""tools/live: real Keystone, Cinder, Ceph, MariaDB, RabbitMQ and guests; the bridge as the README installs it."""
