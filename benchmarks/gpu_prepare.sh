#!/usr/bin/env bash
# Packs what benchmarks/gpu_check.sh needs on a machine with a GPU and nothing else, in two parts of at most 64 MiB:
#
#   bash benchmarks/gpu_prepare.sh OUT HEADERS ONNXRUNTIME_HEADERS BUNDLE...
#
# OUT/one has the check of CUDA and half of TensorRT-RTX's library, OUT/two the other half, its Python module and the
# bundles, slimmed to their FP16 plan. HEADERS is NVIDIA's folder with include/NvInfer.h of TensorRT 11. Compressing the
# library takes 5 minutes of a core and is done once. The machine gets what lies in the repository: put OUT there, into a
# folder that git ignores. Needs nvcc, CMake, and the extra rtx in the Python that is named by
# PYTHON (default: python3).
set -euo pipefail
out=$(realpath -m "$1") headers=$(realpath "$2") onnxruntime=$(realpath "$3")
shift 3
here=$(realpath "$(dirname "$0")/..")
python=${PYTHON:-python3}
export PYTHONPATH=$here
library=$($python -c 'import tensorrt_rtx_libs as libs; print(libs.__path__[0])')/libtensorrt_rtx.so.1
rm -rf "$out/one" "$out/two"
mkdir -p "$out/one/lib" "$out/one/run" "$out/two" "$out/build"

[ -f "$out/rtx.xz" ] || { xz -T1 --x86 --lzma2=preset=9e,dict=256MiB -k -c "$library" >"$out/rtx.part"; mv "$out/rtx.part" "$out/rtx.xz"; }
split -n 2 -d "$out/rtx.xz" "$out/rtx."
mv "$out/rtx.00" "$out/one/" && mv "$out/rtx.01" "$out/two/"

cmake -S "$here/cpp" -B "$out/build" -DHIRESVIT_ONNXRUNTIME_INCLUDE="$onnxruntime" -DHIRESVIT_WITH_TENSORRT=ON \
  -DHIRESVIT_TENSORRT_RTX=ON -DTENSORRT_ROOT="$headers" >/dev/null
cmake --build "$out/build" -j2 --target hiresvit hiresvit-run hiresvit_tensorrt_rtx hiresvit_tensorrt_fake >/dev/null
lib=$out/one/lib cuda=$(sed -n 's/^HIRESVIT_CUDA_INCLUDE:PATH=//p' "$out/build/CMakeCache.txt")
cp "$out"/build/libhiresvit.so.?  "$out/build/libhiresvit_tensorrt_rtx.so" "$lib/"
cp "$out/build/tests/fake_tensorrt/libhiresvit_tensorrt_fake.so" "$lib/libhiresvit_tensorrt.so"
cp "$out/build/hiresvit-run" "$out/one/"
ldd "$out/build/hiresvit-run" | awk '/libpng|libjpeg|libz/ {print $3}' | xargs -I{} cp -L {} "$out/one/run/"
# The same module, which asks nobody whether RTX knows this GPU: for the case that it runs where it says it does not.
mkdir -p "$out/unchecked"
sed 's/^  check_gpu(.*$//' "$here/cpp/src/tensorrt.cpp" >"$out/unchecked/tensorrt.cpp"
flags="-std=c++17 -O2 -fPIC -I$here/cpp/src -DHIRESVIT_TENSORRT_RTX=1 -isystem $headers/include -isystem $cuda"
parts="$here/cpp/src/tensorrt_library.cpp $here/cpp/src/cuda.cpp $out/build/libhiresvit_archive.a -ldl -pthread"
g++ $flags -shared -fvisibility=hidden "$out/unchecked/tensorrt.cpp" $parts -o "$lib/unchecked.so"
g++ $flags "$here/benchmarks/gpu/probe.cpp" $parts -o "$out/one/probe"
g++ -std=c++17 -O2 -I"$here/cpp/src" "$here/benchmarks/gpu/check.cpp" "$out/build/libhiresvit_archive.a" -ldl -pthread \
  -o "$out/one/check"
nvcc -std=c++17 -O2 -gencode arch=compute_90,code=sm_90 -Xcompiler -fPIC -shared -cudart static \
  -I"$here/cpp/tests/fake_tensorrt/include" "$here/benchmarks/gpu/engine.cu" -o "$lib/libengine.so"
cp "$here/benchmarks/gpu_check.sh" "$here/benchmarks/gpu/runner.py" "$here/benchmarks/cuda_layer.py" "$out/one/"
cp "$here/examples/street.jpg" "$out/one/"

# What our Python needs there beside numpy and cuda-bindings, and RTX's own module with the parser that it is linked to.
version=$($python -c 'from importlib.metadata import version as v; print(v("tensorrt-rtx-cu12-bindings"))')
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  --platform manylinux_2_28_x86_64 -d "$out/one" fastjsonschema "tensorrt-rtx-cu12-bindings==$version"
cp "$(dirname "$library")/libtensorrt_onnxparser_rtx.so.1" "$lib/"
for bundle; do
  "$python" "$here/benchmarks/gpu/slim.py" "$bundle" "$out/slim/$(basename "$bundle")"
  tar -C "$out/slim" -c "$(basename "$bundle")" | xz -T1 -6 >"$out/two/$(basename "$bundle").tar.xz"
done
du -sm "$out/one" "$out/two"
