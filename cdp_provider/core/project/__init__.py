# SPDX-License-Identifier: Apache-2.0
"""``cdp.yaml`` as frozen, typed models."""
