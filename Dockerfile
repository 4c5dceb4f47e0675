# Two images from one file:
#   docker build --target cpu -t cgconvert:cpu .
#   docker build --target cuda -t cgconvert:cuda .
# The second needs the NVIDIA container toolkit on the machine that runs it: docker run --gpus all ...

FROM python:3.11-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=passive \
    CGCONVERT_HOME=/var/lib/cgconvert
# Nobody's user: results belong to whoever runs the container with --user. Engines and models are kept in
# CGCONVERT_HOME, which every user may write.
RUN useradd --create-home --uid 1000 cgconvert && mkdir -m 1777 /var/lib/cgconvert
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY cgconvert cgconvert
COPY trainer trainer

FROM base AS cpu
# PyTorch's CPU build; the usual one brings gigabytes of CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --extra-index-url "$TORCH_INDEX" -c constraints.txt "$(grep '^torch==' constraints.txt)+cpu" \
    && pip install -c constraints.txt '.[openvino,cloud]'
USER cgconvert
WORKDIR /data
ENTRYPOINT ["cgconvert"]
CMD ["--help"]

FROM base AS cuda
# PyTorch from the package index brings the CUDA libraries that it needs. The compiler is for `--engine compile`.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && pip install -c constraints.txt '.[cloud]'
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
USER cgconvert
WORKDIR /data
ENTRYPOINT ["cgconvert"]
CMD ["--help"]
