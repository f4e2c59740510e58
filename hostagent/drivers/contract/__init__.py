# SPDX-License-Identifier: Apache-2.0
"""The contract suite: every promise of the seam as a test, run by a driver with guests of its own making.

An outside package runs it with `python -m hostagent.drivers.contract --driver NAME`, after
`pip install extend-bridge[hostagent,contract]`. Its guests come from a factory (factory.py).
"""
