#!/usr/bin/env bash
# Build both Dockerfiles where NVIDIA's images cannot be had: on Debian with an empty package named tensorrt.
# For root, with `apt-get install buildah debootstrap`; takes minutes and 2 GB in a folder that is removed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
build() { buildah --root "$folder/store" --runroot "$folder/run" "$@"; }

debootstrap --variant=minbase --include=python3,ca-certificates bookworm "$folder/base" >"$folder/debootstrap.log"
mkdir -p "$folder/base/usr/lib/python3/dist-packages/tensorrt"
touch "$folder/base/usr/lib/python3/dist-packages/tensorrt/__init__.py"
cp /etc/ssl/certs/ca-certificates.crt "$folder/base/etc/ssl/certs/" # whom this machine trusts, pip there does, too
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$folder/base/etc/pip.conf"

tar -C "$folder/base" -cf "$folder/base.tar" .
container=$(build from scratch)
build add "$container" "$folder/base.tar" /
build commit "$container" localhost/stand-in
for name in jetpack6 jetpack7; do
    build bud --network host --build-arg BASE=localhost/stand-in -f "docker/$name.Dockerfile" -t "hiresvit:$name" .
    container=$(build from "localhost/hiresvit:$name")
    build run "$container" -- hiresvit doctor
done
