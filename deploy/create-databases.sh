#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs once, when PostgreSQL's data folder is empty: a database and an owner each for Airflow and the warehouse.
set -eu

create() {
    psql --no-psqlrc --quiet --username "${POSTGRES_USER:-postgres}" --dbname postgres \
        --set ON_ERROR_STOP=1 --set "name=$1" --set "password=$2" <<'SQL'
create role :"name" login password :'password';
create database :"name" owner :"name";
revoke all on database :"name" from public;
SQL
}

create airflow "$AIRFLOW_DB_PASSWORD"
create cdp "$CDP_DB_PASSWORD"
