# riverrun in a container: `docker build -t riverrun .`, then for example
#   docker run --rm -it riverrun demo
#   docker run -v ./my_topology.py:/app/my_topology.py -v state:/state riverrun \
#     worker my_topology --broker kafka://kafka:9092 --state-dir /state --http 0.0.0.0:9100
# or an image of your own: FROM riverrun, COPY your modules to /app.

FROM python:3.12-slim AS build
WORKDIR /src

# The environment has no pip of its own: what installs it stays behind in this stage.
RUN python -m venv --without-pip /opt/riverrun

# The dependencies first: they change seldom, and the layer is kept when only our code changes.
COPY pyproject.toml ./
RUN python -c "import tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['codecs'], sep='\n')" \
        > requirements.txt \
    && pip --python /opt/riverrun/bin/python install --no-cache-dir -r requirements.txt

# The links in src/riverrun lead to the four folders beside it, here as in the repository.
COPY README.md LICENSE MANIFEST.in ./
COPY src ./src
COPY connectors ./connectors
COPY engine ./engine
COPY operators ./operators
COPY state ./state
RUN pip --python /opt/riverrun/bin/python install --no-cache-dir --no-deps .

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
