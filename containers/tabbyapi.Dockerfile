# TabbyAPI's official image: the checkout in /app, ExLlamaV3 in the first environment on PATH.
ARG BASE
FROM ${BASE}

# The adapter provides the whole command, and the harness checks readiness: a health check in the image would run during the load.
HEALTHCHECK NONE
ENTRYPOINT []
CMD []
