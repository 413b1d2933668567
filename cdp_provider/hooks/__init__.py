# SPDX-License-Identifier: Apache-2.0
"""Airflow connections as what ``cdp_provider.core`` works with."""
