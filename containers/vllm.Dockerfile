# vLLM's official server image (CUDA, ROCm). Tensor-parallel ranks communicate through /dev/shm (`container: {ipc: host}` or a large
# `shm`). `container: {compile_cache: FOLDER}` keeps what the first start compiles.
ARG BASE
FROM ${BASE}

# The adapter provides the whole command, and the harness checks readiness: a health check in the image would run during the load.
HEALTHCHECK NONE
ENTRYPOINT []
CMD []
