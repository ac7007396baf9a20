# llama.cpp's official server image (CPU, CUDA, ROCm): /app/llama-server.
ARG BASE
FROM ${BASE}

# The adapter provides the whole command, and the harness checks readiness: a health check in the image would run during the load.
HEALTHCHECK NONE
ENTRYPOINT []
CMD []
