# SPDX-License-Identifier: Apache-2.0
"""tools/demo: the main job, told as a timeline."""
