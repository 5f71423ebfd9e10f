#!/usr/bin/env bash
# The browser that tests look at a report with: Debian's, installed where this is root and else named in one line.
set -euo pipefail
! command -v chromium >/dev/null || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "the tests of hiresvit report need Chromium: sudo apt-get install chromium fonts-dejavu-core" >&2
  exit 6
fi
echo "== tests: installing chromium"
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core >/dev/null
