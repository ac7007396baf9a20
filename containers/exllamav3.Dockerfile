# ExLlamaV3 on PyTorch's image with a CUDA compiler: the library compiles its extension when it is first imported.
# This takes minutes: once with `container: {compile_cache: FOLDER}`, otherwise at every start.
ARG BASE
FROM ${BASE}
ARG REQUIREMENTS
COPY constraints.txt /opt/enginebench/constraints.txt
RUN PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir --constraint /opt/enginebench/constraints.txt ${REQUIREMENTS}

# The adapter provides the whole command, and the harness checks readiness: a health check in the image would run during the load.
HEALTHCHECK NONE
ENTRYPOINT []
CMD []
