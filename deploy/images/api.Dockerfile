# The API, the migrations and nothing that needs torch. Built from the repository's root.
ARG PYTHON_IMAGE=python:3.12-slim-trixie
FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/carina
ENV PATH=/opt/carina/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
# The dependencies alone, so that a change to the code leaves this layer in the cache.
COPY pyproject.toml deploy/constraints.txt ./
RUN touch README.md LICENSE && pip install --no-cache-dir -c constraints.txt ".[api]"
COPY . .
RUN pip install --no-deps --no-cache-dir .

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="carina-api" \
      org.opencontainers.image.description="Chest X-ray abnormality detection: the intake API. Not a medical device." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --create-home carina
COPY --from=build /opt/carina /opt/carina
ENV PATH=/opt/carina/bin:$PATH PYTHONUNBUFFERED=1 CARINA_API_HOST=0.0.0.0 CARINA_API_PORT=8080
USER 10001
WORKDIR /home/carina
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ[\"CARINA_API_PORT\"]}/healthz', timeout=4)"]
CMD ["carina", "api"]
