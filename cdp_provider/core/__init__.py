# SPDX-License-Identifier: Apache-2.0
"""What a customer data platform does. Nothing in here imports airflow."""
