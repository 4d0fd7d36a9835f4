# Two targets on one base: `docker build --target api .` serves, `docker build --target trainer .` trains.

FROM python:3.11-slim-bookworm AS base
# Logs at once; no bytecode at run time (it is compiled at build time, and the root file system may be read-only).
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RECSVC_DATA_DIR=/var/lib/recsvc
RUN groupadd --gid 10001 recsvc \
    && useradd --uid 10001 --gid recsvc --home-dir /var/lib/recsvc --no-create-home --shell /usr/sbin/nologin recsvc \
    && install --directory --owner=recsvc --group=recsvc --mode=0750 /var/lib/recsvc
WORKDIR /var/lib/recsvc


# Tools that stay out of the images: uv by hash, and what builds our own wheel.
FROM base AS tools
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /src
COPY requirements/uv.txt requirements/
RUN pip install --no-cache-dir --no-deps --only-binary=:all: --require-hashes -r requirements/uv.txt \
    && uv venv /opt/venv

FROM tools AS wheel
COPY requirements/build.txt requirements/
RUN uv pip install --python /opt/venv --only-binary :all: --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY feature_store/ feature_store/
COPY recsvc/ recsvc/
COPY training/ training/
RUN uv build --wheel --no-build-isolation --python /opt/venv/bin/python --out-dir /dist

# The packages come before our code, so that a change to the code does not install them again.
FROM tools AS api-venv
COPY requirements/api.txt requirements/
RUN uv pip install --python /opt/venv --only-binary :all: --require-hashes -r requirements/api.txt
COPY --from=wheel /dist/ /dist/
RUN uv pip install --python /opt/venv --no-deps /dist/*.whl

FROM tools AS trainer-venv
COPY requirements/train.txt requirements/
RUN uv pip install --python /opt/venv --only-binary :all: --require-hashes -r requirements/train.txt
COPY --from=wheel /dist/ /dist/
RUN uv pip install --python /opt/venv --no-deps /dist/*.whl


FROM base AS trainer
# implicit is linked against the system's OpenMP. The release of the base image pins its version.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
# implicit parallelises over users itself; a threaded BLAS below it only makes the threads fight.
ENV OPENBLAS_NUM_THREADS=1
COPY --from=trainer-venv /opt/venv/ /opt/venv/
USER 10001:10001
CMD ["recsvc", "train"]


FROM base AS api
# One thread for each worker's arithmetic: throughput comes from workers. Must be set before numpy is imported.
ENV MKL_NUM_THREADS=1 \
    OMP_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1
COPY --from=api-venv /opt/venv/ /opt/venv/
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
CMD ["recsvc", "serve", "--host", "0.0.0.0", "--port", "8000"]
