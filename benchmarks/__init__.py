# SPDX-License-Identifier: Apache-2.0
"""Speed, side by side with a peer and the floor in one run: ``make bench-NAME``."""
