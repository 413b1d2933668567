# SPDX-License-Identifier: Apache-2.0
"""The steps of the road as Airflow operators; each calls one function of ``cdp_provider.core``."""
