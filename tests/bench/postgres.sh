# A private PostgreSQL of a benchmark, fsync on: sourced by its script, which has made the folder $work. It answers at
# host=$work, as user edgeward; $postgres is its process, ended by stop_postgres.

postgres=

start_postgres() {
    local binaries as_postgres=(setpriv --reuid=postgres --regid=postgres --clear-groups)
    binaries=$(find /usr/lib/postgresql -name initdb -printf '%h\n' | sort -V | tail -1)
    chmod 755 "$work" && chown postgres "$work"
    cd /
    "${as_postgres[@]}" "$binaries/initdb" --auth=trust --username=edgeward --pgdata="$work/data" >/dev/null
    # By itself, not by a shell that waits for it: it is the one that is told to stop.
    "${as_postgres[@]}" "$binaries/postgres" -D "$work/data" -k "$work" -c listen_addresses= >"$work/log" 2>&1 &
    postgres=$!
    until psql -q -h "$work" -U edgeward -d postgres -c 'select 1' >/dev/null 2>&1; do
        kill -0 "$postgres" || { cat "$work/log" >&2; exit 1; }
        sleep 0.2
    done
}

stop_postgres() {
    [ -n "$postgres" ] || return 0
    kill -INT "$postgres" 2>/dev/null || true
    wait "$postgres" 2>/dev/null || true
}
