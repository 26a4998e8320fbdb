# riverrun in a container: `docker build -t riverrun .`, then for example
#   docker run --rm -it riverrun demo
#   docker run -v ./my_topology.py:/app/my_topology.py -v state:/state riverrun \
#     worker my_topology --broker kafka://kafka:9092 --state-dir /state --http 0.0.0.0:9100
# or an image of your own: FROM riverrun, COPY your modules to /app.

FROM rust:1.95-slim AS rust

FROM python:3.12-slim AS build
WORKDIR /src

# The compiler of the native kernel, and the linker that it calls.
COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

# The environment has no pip of its own: what installs it stays behind in this stage.
RUN python -m venv --without-pip /opt/riverrun

# The dependencies first: they change seldom, and the layer is kept when only our code changes.
COPY pyproject.toml ./
RUN python -c "import tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['codecs'], sep='\n')" \
        > requirements.txt \
    && pip --python /opt/riverrun/bin/python install --no-cache-dir -r requirements.txt

# The kernel, in a layer that is kept until it changes. Arguments and environment are those with
# which pip has it built, so that it finds this below.
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo CARGO_TARGET_DIR=/kernel-target \
    PATH=/usr/local/cargo/bin:$PATH \
    PYO3_PYTHON=/opt/riverrun/bin/python PYO3_BUILD_EXTENSION_MODULE=1
COPY kernel ./kernel
RUN cargo rustc --release --lib --crate-type cdylib --manifest-path kernel/Cargo.toml \
        --features "python pyo3/extension-module pyo3/abi3-py311"

# The links in src/riverrun lead to the four folders beside it, here as in the repository.
COPY README.md LICENSE MANIFEST.in ./
COPY src ./src
COPY connectors ./connectors
COPY engine ./engine
COPY operators ./operators
COPY state ./state
# Without its kernel riverrun would install, too: ask for it.
RUN pip --python /opt/riverrun/bin/python install --no-cache-dir --no-deps . \
    && RIVERRUN_PLANE=kernel /opt/riverrun/bin/riverrun doctor

FROM python:3.12-slim
# A number, so that Kubernetes can check runAsNonRoot. It owns its state directory, nothing else.
RUN useradd --system --no-create-home --shell /usr/sbin/nologin --uid 10001 riverrun \
    && install -d -o riverrun -g riverrun /state
COPY --from=build /opt/riverrun /opt/riverrun
ENV PATH=/opt/riverrun/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONFAULTHANDLER=1
# Where topology modules go; riverrun imports them from the working directory.
WORKDIR /app
USER 10001
VOLUME /state
# Metrics, health and readiness, with `worker --http 0.0.0.0:9100`.
EXPOSE 9100
# The worker hears SIGTERM itself (exec form, no shell between), drains, commits and ends.
STOPSIGNAL SIGTERM
# Speaks to the worker's /healthz on port 9100: a container that runs another command, or serves
# on another port, is started with --no-healthcheck or a check of its own. The image has no curl.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9100/healthz', timeout=4)"]
ENTRYPOINT ["riverrun"]
CMD ["--help"]
