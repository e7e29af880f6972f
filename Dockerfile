# Two images from one file: `docker build --target probe .` and `docker build --target controller .`
# Both run as a user without name or rights, listen on one port (/metrics, /livez, /readyz), keep
# nothing in the image, and end within 10 s of SIGTERM. To move a port set the METRICS variable, not
# the flag: the health check reads it.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# What changes seldom comes first: a change of our code rebuilds nothing above it. The image gets an
# environment without pip; what is installed is what the lock names, to the byte.
COPY requirements/build.lock requirements/run.lock requirements/
RUN python -m venv --without-pip /opt/fleetpulse \
 && pip --python /opt/fleetpulse/bin/python install --require-hashes --only-binary :all: \
      -r requirements/run.lock \
 && pip install --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY probe probe
COPY controller controller
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && pip --python /opt/fleetpulse/bin/python install --no-deps dist/*.whl

FROM python:${PYTHON}-slim-bookworm AS base
LABEL org.opencontainers.image.vendor="fleetpulse" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/fleetpulse /opt/fleetpulse
# Safe path: no module is ever taken from the working directory, whatever is mounted there.
ENV PATH=/opt/fleetpulse/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that a cluster can see that it is not root.
USER 10001:10001

# Decides: needs FLEETPULSE_DATABASE_URL and FLEETPULSE_REDIS_URL, and the schema, once:
# docker run --entrypoint fleetpulse IMAGE db upgrade --database URL
FROM base AS controller
LABEL org.opencontainers.image.title="fleetpulse-controller" \
      org.opencontainers.image.description="Replaces replicas that fail and rolls out new revisions."
ENV FLEETPULSE_CONTROLLER__METRICS=0.0.0.0:9156
# Beyond loopback the API needs a certificate and tokens (docs/operations.md); set it true with them.
ENV FLEETPULSE_CONTROLLER__API=false
EXPOSE 9156
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-IS", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['FLEETPULSE_CONTROLLER__METRICS'].rpartition(':')[2]), timeout=3); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "controller"]

# Probes: needs FLEETPULSE_REDIS_URL, and FLEETPULSE_ALLOW where replicas have public addresses.
FROM base AS probe
LABEL org.opencontainers.image.title="fleetpulse-probe" \
      org.opencontainers.image.description="Probes the health of inference replicas, many times a second."
ENV FLEETPULSE_PROBE__METRICS=0.0.0.0:9155
EXPOSE 9155
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-IS", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['FLEETPULSE_PROBE__METRICS'].rpartition(':')[2]), timeout=3); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "probe"]
