# hiresvit on JetPack 7: Jetson Linux 38 or later, Python 3.12, CUDA 13.0, TensorRT 10.13.
# In the clone:  docker build -f docker/jetpack7.Dockerfile -t hiresvit:jetpack7 .
# What was built of it, and how it is run: docs/jetson.md.
ARG BASE=nvcr.io/nvidia/tensorrt:25.08-py3
FROM ${BASE}

# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*

# TensorRT's Python package is the image's own: the environment sees it.
RUN python3 -m venv --system-site-packages /opt/hiresvit
ENV PATH=/opt/hiresvit/bin:$PATH

COPY pyproject.toml README.md LICENSE /src/
COPY hiresvit /src/hiresvit
# onnx is what `hiresvit build` reads graphs with; nothing here needs torch.
RUN pip install --no-cache-dir /src 'onnx>=1.19' 'cuda-bindings>=13'

# Found, not imported: without the board's driver it cannot be loaded.
RUN python -c "import importlib.util as u; assert u.find_spec('tensorrt'), 'the base image has no TensorRT for Python'" \
    && hiresvit --version

WORKDIR /work
ENTRYPOINT ["hiresvit"]
CMD ["doctor"]
