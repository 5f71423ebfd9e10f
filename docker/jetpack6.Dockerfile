# hiresvit on JetPack 6: Jetson Linux 36, Python 3.10, CUDA 12.6, TensorRT 10.3.
# In the clone:  docker build -f docker/jetpack6.Dockerfile -t hiresvit:jetpack6 .
# What was built of it, and how it is run: docs/jetson.md.
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
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
RUN pip install --no-cache-dir /src 'onnx>=1.19' 'cuda-bindings>=12.9,<13'

# Found, not imported: without the board's driver it cannot be loaded.
RUN python -c "import importlib.util as u; assert u.find_spec('tensorrt'), 'the base image has no TensorRT for Python'" \
    && hiresvit --version

WORKDIR /work
ENTRYPOINT ["hiresvit"]
CMD ["doctor"]
