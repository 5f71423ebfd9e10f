#!/usr/bin/env bash
# The backend for TensorRT on a real GPU, in two calls, since what is carried is limited; gpu_prepare.sh packs it.
# From the repository's root:
#
#   bash OUT/one/gpu_check.sh one OUT/one     CUDA: our layer and backend on a network of one kernel
#   bash OUT/one/gpu_check.sh two OUT/two     TensorRT-RTX: plans in C++ and in Python
#
# Each goes on after a failure and ends with how many there were. RTX 1.7 lists no Hopper: `probe` says what it says.
set -u
part=$1 from=$(realpath "$2") root=/tmp/gpu
export PYTHONPATH=$PWD:/tmp/gpu/site
failures=0
mkdir -p $root && cp -r "$from"/. $root/ && cd $root || exit 1
export LD_LIBRARY_PATH=$root/lib:${LD_LIBRARY_PATH:-}
with=(env "LD_LIBRARY_PATH=$root/run:$LD_LIBRARY_PATH") # the libpng and libjpeg that hiresvit-run was built with
try() {
  echo "== $*"
  timeout 60 "$@" 2>&1 | tail -40
  local code=${PIPESTATUS[0]}
  [ "$code" = 0 ] || { failures=$((failures + 1)) && echo "-- exit $code"; }
}

if [ "$part" = one ]; then
  python3 -m pip install -q --no-index --no-deps --target $root/site ./*.whl
  nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader
  export HIRESVIT_TENSORRT_MODULE=$root/lib/libhiresvit_tensorrt.so HIRESVIT_TENSORRT=$root/lib/libengine.so
  try ./check $root
  try compute-sanitizer --error-exitcode 9 --report-api-errors no --leak-check full ./check $root few
  try python3 cuda_layer.py
else
  cat rtx.00 rtx.01 | xz -d >lib/libtensorrt_rtx.so.1
  rtx=$root/lib/libtensorrt_rtx.so.1
  for tar in *.tar.xz; do tar -xJf "$tar"; done
  for manifest in */manifest.json; do
    bundle=$(dirname "$manifest")
    module=lib/libhiresvit_tensorrt_rtx.so
    export HIRESVIT_TENSORRT_MODULE=$root/$module
    if ! "${with[@]}" ./hiresvit-run "$bundle" street.jpg --graph plan --library $rtx; then
      try ./probe $rtx "$bundle/fp16.plan" || true
      export HIRESVIT_TENSORRT_MODULE=$root/lib/unchecked.so
    fi
    for graph in "" --cuda-graph; do
      try "${with[@]}" ./hiresvit-run "$bundle" street.jpg --graph plan --library $rtx --bench 200 $graph
    done
    try python3 runner.py "$bundle" $rtx
    try "${with[@]}" compute-sanitizer --error-exitcode 9 ./hiresvit-run "$bundle" street.jpg \
      --graph plan --library $rtx --bench 2
  done
fi
echo "$failures failed"
