# SPDX-License-Identifier: Apache-2.0
"""What stands behind ``make demo``, ``make ui`` and ``make stop``."""
