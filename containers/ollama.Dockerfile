# Ollama's official image, with Python for the worker that imports and loads the model.
ARG BASE
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*

# The adapter provides the whole command, and the harness checks readiness: a health check in the image would run during the load.
HEALTHCHECK NONE
ENTRYPOINT []
CMD []
