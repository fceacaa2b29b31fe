# syntax=docker/dockerfile:1.7
ARG RUST_VERSION=1.95
FROM rust:${RUST_VERSION}-slim-bookworm AS build
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
WORKDIR /src
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev libssl-dev make perl pkg-config zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
COPY . .
ENV CARGO_NET_RETRY=5 CARGO_TERM_COLOR=never
# The program leaves the cached target folder in the same step, else it would not be in the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    scripts/release --bins \
 && install -Dm755 target/release/pysmurf-archiver /out/usr/local/bin/pysmurf-archiver \
 && strip /out/usr/local/bin/pysmurf-archiver \
 && ln -s pysmurf-archiver /out/usr/local/bin/rsync

FROM debian:bookworm-slim AS runtime
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libssl3 tini tzdata zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 9000 ocs \
 && useradd --uid 9000 --gid ocs --home-dir /home/ocs --create-home --shell /usr/sbin/nologin ocs \
 && groupadd --gid 1001 smurf \
 && useradd --uid 1000 --gid smurf --home-dir /home/cryo --create-home --shell /usr/sbin/nologin cryo \
 && install -d -o ocs -g ocs /var/lib/pysmurf-archiver
COPY --from=build /out/ /
# The account of the other OCS containers; cryo:smurf is SupRsync's, which owns the data of a smurf-server. Mount the
# account's ~/.ssh, and /data. HOME stays unset, so that it follows `user:`.
USER 9000:9000
# As in the images of OCS. Without a site file there, and without INSTANCE_ID and the like, it is no agent.
ENV OCS_CONFIG_DIR=/config TZ=Etc/UTC
VOLUME ["/data", "/var/lib/pysmurf-archiver"]
# Where the embedded database goes when no other is named.
WORKDIR /var/lib/pysmurf-archiver
STOPSIGNAL SIGTERM
# Whether it lives and moves; a storage node out of reach makes no container ill.
HEALTHCHECK --interval=60s --timeout=10s --start-period=60s --retries=3 CMD ["pysmurf-archiver", "status", "--health"]
# Options alone mean `run`; an agent's variables need no option at all.
ENTRYPOINT ["/usr/bin/tini", "--", "pysmurf-archiver"]
CMD ["run"]
LABEL org.opencontainers.image.title="pysmurf-archiver" \
      org.opencontainers.image.source="https://github.com/simonsobs/pysmurf-archiver" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
