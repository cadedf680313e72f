# The image of pybuild itself: pybuild, and what it uses where it finds it (git for contexts, newuidmap for ranges of
# ids). docs/ci.md shows how it is run.
#
#   pybuild -t pybuild .          any BASE with Python 3.11 or later, venv and apt-get will do:
#   pybuild -t pybuild --build-arg BASE=debian:12-with-python .

ARG BASE=python:3-slim


FROM $BASE AS packages

# With all its packages, an environment of its own: their names are plain (`builder`, `layers`, `cache`). Modules are
# compiled without the times of their sources, so that they are the same each time.
RUN --mount=type=bind,target=/context \
    --mount=type=cache,target=/root/.cache \
    cp -r /context /tmp/pybuild \
    && python3 -m venv /opt/pybuild \
    && /opt/pybuild/bin/pip install --no-compile /tmp/pybuild \
    && /opt/pybuild/bin/pip uninstall -y pip setuptools \
    && /opt/pybuild/bin/python -m compileall -q -f --invalidation-mode unchecked-hash /opt/pybuild/lib \
    && rm -r /tmp/pybuild


FROM $BASE

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git uidmap \
    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/ldconfig/*

COPY --link --from=packages /opt/pybuild /opt/pybuild

# A volume, since the files of a container are an overlay, and no overlay can be stacked on them; for whichever user.
RUN mkdir -m 1777 /var/lib/pybuild
VOLUME /var/lib/pybuild

ENV PATH=/opt/pybuild/bin:$PATH \
    PYBUILD_ROOT=/var/lib/pybuild
WORKDIR /workspace

ENTRYPOINT ["pybuild"]
CMD ["--help"]
