# TensorRT-LLM's official release image. Its makers start it with
# `container: {ipc: host, ulimits: {memlock: -1, stack: 67108864}}`.
ARG BASE
FROM ${BASE}

# The whole command comes from the adapter, and readiness is asked from outside: a check of the image's own would run beside the load.
HEALTHCHECK NONE
ENTRYPOINT []
CMD []
