#!/usr/bin/env bash
# Builds llama-server for Hopper (sm_90) from the kit's sources: llamacpp_build.sh SOURCES FOLDER [--jobs N] [--quick]
#
# N: parallel jobs, 0: all cores. --quick: for a rehearsal: without optimisation, device code checked and not compiled (there is no device to
# run it), and without CUDA where there is no nvcc. The sources have no
# flash attention but for the head sizes that are used (llamacpp_sources.py). Goes on where an earlier call was ended.
set -euo pipefail
sources=$1 folder=$2 jobs=0 quick=
shift 2
while [ $# -gt 0 ]; do
    case $1 in
        --jobs) jobs=$2; shift 2 ;;
        --quick) quick=yes; shift ;;
        *) echo "llamacpp_build.sh: unknown option $1" >&2; exit 2 ;;
    esac
done
[ "$jobs" -gt 0 ] || jobs=$(nproc)
[ -x "$folder/bin/llama-server" ] && exit 0
command -v cmake > /dev/null || { echo "llamacpp_build.sh: no cmake on PATH" >&2; exit 2; }
mkdir -p "$folder"
cuda=ON flags=(-DCMAKE_BUILD_TYPE=Release)
[ -z "$quick" ] || flags=(-DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG=-O0 -DCMAKE_CXX_FLAGS_DEBUG=-O0)
if root=$(python3 "$(dirname "${BASH_SOURCE[0]}")/cuda_tree.py" --folder "$folder/cuda"); then
    export PATH=$root/bin:$PATH CUDACXX=$root/bin/nvcc
    flags+=(-DCUDAToolkit_ROOT="$root" -DCMAKE_CUDA_COMPILER="$root/bin/nvcc" -DCMAKE_CUDA_ARCHITECTURES=90-real)
    # without NO_VMM it links libcuda, which is the driver's and often has no name that a linker finds
    flags+=(-DGGML_CUDA_NO_VMM=ON -DCMAKE_BUILD_RPATH="$root/lib64")
    [ -z "$quick" ] || flags+=(-DCMAKE_CUDA_FLAGS_DEBUG=-fdevice-syntax-only)
elif [ -n "$quick" ]; then
    cuda=OFF
else
    exit 2
fi
generator=()
command -v ninja > /dev/null && generator=(-G Ninja)
cmake -S "$sources" -B "$folder" "${generator[@]}" -DGGML_CUDA=$cuda -DGGML_NATIVE=ON -DGGML_NCCL=OFF \
    -DGGML_CUDA_NCCL=OFF -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF "${flags[@]}"
cmake --build "$folder" --target llama-server --parallel "$jobs"
"$folder/bin/llama-server" --version
