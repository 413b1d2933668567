#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: sh deploy/new-env.sh > .env
# .env.example with a fresh random value for each secret that it leaves empty.
set -eu
umask 077
while IFS= read -r line; do
    case $line in
    # Fernet wants 32 bytes in URL-safe base64.
    AIRFLOW_FERNET_KEY=) echo "$line$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')" ;;
    # The others travel in URLs and JSON, so they are plain hexadecimal.
    [A-Z]*=) echo "$line$(od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n')" ;;
    *) printf '%s\n' "$line" ;;
    esac
done < "$(dirname "$0")/../.env.example"
