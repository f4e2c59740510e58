# SPDX-License-Identifier: Apache-2.0
"""What runs inside the storage VM: targets, what nova-compute did before us, our agent, and the cases."""
