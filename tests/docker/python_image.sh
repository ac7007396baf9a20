#!/usr/bin/env bash
# Makes a small Debian image with Python 3.11 and pip from packages, where no registry can be reached: a stand-in for the official one.
# Usage: python_image.sh NAME:TAG. Needs root, mmdebstrap and a Docker daemon. Certificates and pip's settings are this machine's.
set -euo pipefail
packages=python3-minimal,libpython3.11-stdlib,python3-distutils,python3-pip,python3-setuptools,python3-wheel
packages+=,ca-certificates,dash,coreutils,sed,grep,tzdata,netbase,base-files,base-passwd,libgomp1,libstdc++6
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
# Packages are unpacked, not configured: what their scripts would have done and pip needs is done here.
# shellcheck disable=SC2016  # $1 is mmdebstrap's
mmdebstrap --quiet --variant=extract --include="$packages" --extract-hook='
    for file in passwd group; do cp "$1/usr/share/base-passwd/$file.master" "$1/etc/$file"; done
    ln -sf dash "$1/bin/sh"
    ln -sf python3.11 "$1/usr/bin/python3"
    mkdir -p "$1/etc/ssl/certs"
    cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"
    if [ -f /etc/pip.conf ]; then cp /etc/pip.conf "$1/etc/"; fi' bookworm "$folder/image.tar"
docker import "$folder/image.tar" "$1"
