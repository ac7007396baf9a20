# Ollama's official image and a Python beside it, which the worker that creates and loads the model needs.
ARG BASE
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*

# The whole command comes from the adapter, and readiness is asked from outside: a check of the image's own would run beside the load.
HEALTHCHECK NONE
ENTRYPOINT []
CMD []
