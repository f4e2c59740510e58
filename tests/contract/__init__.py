# SPDX-License-Identifier: Apache-2.0
"""The contract suite of hostagent/drivers/contract, run by our own drivers and by one from outside."""
