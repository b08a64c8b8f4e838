# Two images from one file. `master`: PostgreSQL, pgBackRest and the program as its launcher. `api`: the program and what it takes to
# back up, try and restore both masters. It has no package manager and no tools, and a shell only because PostgreSQL calls one for the command
# that fetches WAL.

FROM debian:trixie-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cargo gcc libc6-dev ca-certificates
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/root/.cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin imdb-ha && cp target/release/imdb-ha /imdb-ha

FROM debian:trixie-slim AS postgres
# Both images share files through volumes, so their user needs one number. The package is told to make no cluster of its own; the
# compiler for queries with its 150 MB stays out (such short queries never use it), and so do manuals and translations.
RUN groupadd --gid 999 postgres \
    && useradd --uid 999 --gid postgres --home-dir /var/lib/postgresql --shell /usr/sbin/nologin postgres \
    && mkdir -p /etc/postgresql-common/createcluster.d \
    && echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/imdb-ha.conf \
    && printf 'path-exclude=%s\n' '/usr/lib/*/libLLVM*' '/usr/lib/*/libz3*' '/usr/lib/postgresql/*/lib/llvmjit*' \
        '/usr/lib/postgresql/*/lib/bitcode/*' '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/locale/*' \
        '/usr/share/i18n/*' >/etc/dpkg/dpkg.cfg.d/imdb-ha \
    && apt-get update \
    && apt-get install -y --no-install-recommends postgresql-17 pgbackrest \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/*
# Where the volumes are mounted; a new volume takes its owner from here.
RUN install -d -o postgres -g postgres -m 700 /var/lib/imdb-ha/master1 /var/lib/imdb-ha/master2 \
        /var/lib/pgbackrest/master1 /var/lib/pgbackrest/master2 /var/log/pgbackrest /var/lib/imdb-ha/files

FROM postgres AS master
COPY --from=build /imdb-ha /usr/local/bin/imdb-ha
COPY pgbackrest /etc/pgbackrest
ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/bin:/usr/bin:/bin BACKUP_CONFIG_DIR=/etc/pgbackrest
USER postgres
ENTRYPOINT ["imdb-ha"]
CMD ["--help"]

# Everything that the programs of the small image load, found by asking the loader, and the files that they read.
FROM postgres AS closure
COPY --from=build /imdb-ha /usr/local/bin/imdb-ha
RUN mkdir -p /out \
    && cd /usr/lib/postgresql/17/bin \
    && programs="/usr/local/bin/imdb-ha /usr/bin/pgbackrest /usr/bin/setpriv /usr/bin/dash /usr/bin/mkdir /usr/bin/rm /usr/bin/rmdir /usr/bin/test $PWD/postgres $PWD/initdb $PWD/pg_ctl $PWD/psql $PWD/pg_amcheck" \
    && ldd $programs /usr/lib/postgresql/17/lib/*.so | awk '$2 == "=>" {print $3} $1 ~ /^\// && NF == 2 {print $1}' \
        | grep '^/' | sort -u | xargs cp -L --parents -t /out \
    && cp -a --parents -t /out $programs /usr/lib/postgresql/17/lib /usr/share/postgresql/17 /usr/share/zoneinfo /usr/lib/locale/C.utf8 \
        /etc/passwd /etc/group /var/lib/imdb-ha /var/lib/pgbackrest /var/log/pgbackrest \
    && ln -s usr/bin /out/bin && ln -s dash /out/usr/bin/sh \
    && printf 'hosts: files dns\npasswd: files\ngroup: files\n' >/out/etc/nsswitch.conf \
    && install -d -m 1777 /out/tmp

FROM scratch AS api
COPY --from=closure /out /
COPY pgbackrest /etc/pgbackrest
COPY data/sample /usr/share/imdb-ha/sample
ENV PATH=/usr/local/bin:/usr/bin BACKUP_CONFIG_DIR=/etc/pgbackrest
USER 999:999
EXPOSE 5000
ENTRYPOINT ["imdb-ha"]
CMD ["serve"]
