#!/usr/bin/env bash
# Builds llama-server for Hopper (sm_90) from the kit's sources: llamacpp_build.sh SOURCES FOLDER [--jobs N] [--cpu]
#
# N: parallel jobs, 0: all cores. --cpu: without CUDA, for a rehearsal. The sources have no flash attention but for the head sizes that are
# used (llamacpp_sources.py). Where the CUDA toolkit has no cuBLAS, that of the Python package nvidia-cublas is used, which torch brings.
set -euo pipefail
sources=$1 folder=$2 jobs=0 cuda=ON
shift 2
while [ $# -gt 0 ]; do
    case $1 in
        --jobs) jobs=$2; shift 2 ;;
        --cpu) cuda=OFF; shift ;;
        *) echo "llamacpp_build.sh: unknown option $1" >&2; exit 2 ;;
    esac
done
[ "$jobs" -gt 0 ] || jobs=$(nproc)
[ -x "$folder/bin/llama-server" ] && exit 0
mkdir -p "$folder"
extra=(-DCMAKE_BUILD_TYPE=Release)
[ $cuda = OFF ] && extra=(-DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG=-O0 -DCMAKE_CXX_FLAGS_DEBUG=-O0)  # quick to build, slow to run
if [ $cuda = ON ]; then
    nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
    root=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
    if ! ls "$root"/lib64/libcublas.so "$root"/targets/*/lib/libcublas.so > /dev/null 2>&1; then
        root=$(python3 "$(dirname "${BASH_SOURCE[0]}")/cuda_tree.py" --toolkit "$root" --folder "$folder/cuda")
    fi
    export PATH=$root/bin:$PATH CUDACXX=$root/bin/nvcc
    extra+=(-DCUDAToolkit_ROOT="$root" -DCMAKE_CUDA_COMPILER="$root/bin/nvcc" -DCMAKE_CUDA_ARCHITECTURES=90-real)
    # without NO_VMM it links libcuda, which is the driver's and often has no name that a linker finds
    extra+=(-DGGML_CUDA_NO_VMM=ON -DCMAKE_BUILD_RPATH="$root/lib64")
fi
generator=()
command -v ninja > /dev/null && generator=(-G Ninja)
cmake -S "$sources" -B "$folder" "${generator[@]}" -DGGML_CUDA=$cuda -DGGML_NATIVE=ON -DGGML_NCCL=OFF \
    -DGGML_CUDA_NCCL=OFF -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF "${extra[@]}"
cmake --build "$folder" --target llama-server --parallel "$jobs"
"$folder/bin/llama-server" --version
