# llama.cpp's server inside the wheel xllamacpp, as `bench engines install llamacpp` installs it.
ARG BASE
FROM ${BASE}
ARG REQUIREMENTS
COPY constraints.txt /opt/enginebench/constraints.txt
RUN PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir --constraint /opt/enginebench/constraints.txt ${REQUIREMENTS}

# The whole command comes from the adapter, and readiness is asked from outside: a check of the image's own would run beside the load.
HEALTHCHECK NONE
ENTRYPOINT []
CMD []
