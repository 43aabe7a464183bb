# Run by the server, in its data directory, when its recovery has ended: takes out again what only the recovery needed.
# Whatever goes wrong here leaves the server running; `everpoint check` tells what is left then.
LC_ALL=C
export LC_ALL
umask 077
own=everpoint-recovery
conf=postgresql.auto.conf
if [ -e recovery.signal ] || [ -e standby.signal ]; then
    echo "$0: the recovery has not ended" >&2
    exit 1
fi
sum() { cksum <"$1" 2>/dev/null; }
for try in 1 2 3 4 5; do
    found=$(sum $conf)
    if [ "$found" = "$(sum $own/written)" ]; then
        new=$own/before
    else
        # ALTER SYSTEM was used meanwhile: only our own lines go.
        new=$own/rest
        cp -p $conf $new || exit 1
        grep -vxFf $own/lines $conf >$new
        [ $? -le 1 ] || exit 1
    fi
    [ "$(sum $conf)" = "$found" ] || continue
    if [ -e $new ]; then mv -f $new $conf || exit 1; else rm -f $conf || exit 1; fi
    # Of a tablespace that was being created when replay stopped only an empty directory is there.
    while read -r oid; do
        rmdir pg_tblspc/"$oid"/PG_* pg_tblspc/"$oid" || rm -f pg_tblspc/"$oid"
    done 2>/dev/null <$own/unfinished
    rm -rf $own pg_wal/everpoint-spool pg_wal/everpoint-fetch-error.json everpoint-log everpoint.restore-incomplete \
        recovery.signal.everpoint-new
    # What can change without a restart does so now; the rest is shown as pending_restart.
    read -r server <postmaster.pid && [ "$server" -gt 1 ] && kill -HUP "$server"
    exit 0
done
exit 1
