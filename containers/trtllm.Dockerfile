# TensorRT-LLM's official release image. NVIDIA starts it with
# `container: {ipc: host, ulimits: {memlock: -1, stack: 67108864}}`.
ARG BASE
FROM ${BASE}

# The adapter provides the whole command, and the harness checks readiness: a health check in the image would run during the load.
HEALTHCHECK NONE
ENTRYPOINT []
CMD []
