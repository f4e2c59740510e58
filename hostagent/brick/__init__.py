# SPDX-License-Identifier: Apache-2.0
"""os-brick, in a child process that can be killed. The only folder that imports os_brick."""
