# SPDX-License-Identifier: Apache-2.0
"""A customer data platform that lives inside Apache Airflow."""

__version__ = "0.1.0"
