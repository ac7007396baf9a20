# SGLang's official image (CUDA, ROCm). Ranks talk through /dev/shm (`container: {ipc: host}` or a large `shm`).
# Kernels that it makes at the first start, `container: {compile_cache: FOLDER}` keeps for the next.
ARG BASE
FROM ${BASE}

# The whole command comes from the adapter, and readiness is asked from outside: a check of the image's own would run beside the load.
HEALTHCHECK NONE
ENTRYPOINT []
CMD []
