# llama.cpp's official server image (CPU, CUDA, ROCm): /app/llama-server.
ARG BASE
FROM ${BASE}

# The whole command comes from the adapter, and readiness is asked from outside: a check of the image's own would run beside the load.
HEALTHCHECK NONE
ENTRYPOINT []
CMD []
