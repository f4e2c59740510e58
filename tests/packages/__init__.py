# SPDX-License-Identifier: Apache-2.0
"""Packages of the bridge, built and used as an operator does: an OCI image, a Debian package, an Ansible role."""
