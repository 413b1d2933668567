# SPDX-License-Identifier: Apache-2.0
"""What the triggerer polls for the sensors."""
