# TabbyAPI's official image: the checkout in /app, ExLlamaV3 in the environment that PATH names first.
ARG BASE
FROM ${BASE}

# The whole command comes from the adapter, and readiness is asked from outside: a check of the image's own would run beside the load.
HEALTHCHECK NONE
ENTRYPOINT []
CMD []
