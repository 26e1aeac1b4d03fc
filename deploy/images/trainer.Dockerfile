# The trainer. torch's wheels bring CUDA; the host brings the driver.
ARG PYTHON_IMAGE=python:3.12-slim-trixie
FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/carina
ENV PATH=/opt/carina/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
# The dependencies alone, so that a change to the code leaves this layer in the cache.
COPY pyproject.toml deploy/constraints.txt ./
RUN touch README.md LICENSE && pip install --no-cache-dir -c constraints.txt ".[trainer]"
COPY . .
RUN pip install --no-deps --no-cache-dir .

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="carina-trainer" \
      org.opencontainers.image.description="Chest X-ray abnormality detection: training and evaluation. Not a medical device." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# The cache's folder belongs to the user before a volume is mounted there, which then belongs to the user too.
RUN useradd --uid 10001 --create-home carina && install --directory --owner=carina /home/carina/renditions
COPY --from=build /opt/carina /opt/carina
ENV PATH=/opt/carina/bin:$PATH PYTHONUNBUFFERED=1 CARINA_TRAINER_CACHE_FOLDER=/home/carina/renditions \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /home/carina
# It listens on no port; the probe reads the file in which it describes itself, and asks no server.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["carina", "probe", "live"]
CMD ["carina", "trainer"]
