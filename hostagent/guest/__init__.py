# SPDX-License-Identifier: Apache-2.0
"""File systems inside guests: see them, and grow those whose owner asked. Answers of a guest are never trusted."""
