# SPDX-License-Identifier: Apache-2.0
"""os-brick, in a child process that can be ended. The only folder that imports os_brick."""
