#!/usr/bin/env bash
# What building and testing cpp/ needs: Debian's packages, installed where this is root and else named in one line, and
# ONNX Runtime's C headers of 1.22 or newer, which know plug-ins and stand in Debian from forky on: its package is
# unpacked into cpp/third_party. With --cross also the compiler for aarch64, the emulator that runs what it makes, and
# the sshd that tests start as a board.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

packages=(cmake ninja-build g++ libpng-dev libjpeg-dev nlohmann-json3-dev)
[ "${1:-}" != --cross ] || packages+=(g++-aarch64-linux-gnu qemu-user openssh-server)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "cpp needs ${missing[*]}: sudo apt-get install ${missing[*]}" >&2
    exit 6
  fi
  echo "== cpp: installing ${missing[*]}"
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
fi

header=third_party/onnxruntime/onnxruntime_c_api.h
knows_plugins() { grep -qs 'GetEpDevices' "$1"; }
! knows_plugins "$header" || exit 0
mkdir -p third_party
work=$(mktemp -d third_party/apt.XXXXXX)
trap 'rm -rf "$work"' EXIT
if knows_plugins /usr/include/onnxruntime/onnxruntime_c_api.h; then
  cp -r /usr/include/onnxruntime "$work/found"
else
  # One suite as the only source of an apt folder of its own: nothing of the system's is touched, signatures are checked.
  here=$PWD/$work
  echo "== cpp: ONNX Runtime's headers, from Debian's libonnxruntime-dev"
  fetch_from() {
    rm -rf "$work"/{lists,cache,package}
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $1 main" \
      >"$work/sources.list"
    local apt=(apt-get -qq -o "Dir::Etc::SourceList=$here/sources.list" -o Dir::Etc::SourceParts=/dev/null
      -o "Dir::State::Lists=$here/lists" -o "Dir::Cache=$here/cache" -o APT::Sandbox::User=root)
    "${apt[@]}" update && (cd "$work" && "${apt[@]}" download libonnxruntime-dev && dpkg -x libonnxruntime-dev_*.deb package)
  }
  if ! fetch_from forky; then
    echo "cpp: no headers from forky; those of trixie know no plug-ins, and build all but Qualcomm's HTP" >&2
    fetch_from trixie
  fi
  mv "$work/package/usr/include/onnxruntime" "$work/found"
fi
rm -rf third_party/onnxruntime
mv "$work/found" third_party/onnxruntime
[ -f "$header" ] || { echo "cpp: $header did not come with Debian's libonnxruntime-dev" >&2; exit 6; }
