//! A little of everything that PostgreSQL logs.

use std::process::Stdio;

use super::{Server, as_server_user, programs, run};

/// Something of everything that the log can hold.
pub(crate) fn workload(server: &Server) {
    let spaces = server.sockets.join("space");
    let mut mkdir = as_server_user("mkdir");
    run(mkdir.arg(&spaces));
    let strategy = |name: &str| {
        if server.major >= 15 { format!(" strategy {name}") } else { String::new() }
    };
    let statements = [
        "create table t(id serial primary key, v text); insert into t(v) select repeat(md5(i::text), 20) from generate_series(1, 3000) i".to_owned(),
        "begin; insert into t(v) values('a'); savepoint s; insert into t(v) values('b'); savepoint s2; insert into t(v) values('c'); release s2; rollback to s; insert into t(v) values('d'); commit".to_owned(),
        "do $$ begin for i in 1..300 loop begin insert into t(v) values(i::text); exception when others then null; end; end loop; end $$".to_owned(),
        "begin; insert into t(v) values('gone'); rollback".to_owned(),
        "begin; insert into t(v) values('p'); savepoint s; insert into t(v) values('q'); prepare transaction 'it''s one'".to_owned(),
        "begin; create table dropped(i int); insert into dropped values(1); prepare transaction 'two'".to_owned(),
        "commit prepared 'it''s one'".to_owned(),
        "rollback prepared 'two'".to_owned(),
        "create table x(i int); drop table x; truncate t; vacuum full t".replace("; ", ";\n"),
        "select pg_create_restore_point('before everything')".to_owned(),
        format!("create database copied template template0{}", strategy("file_copy")),
        format!("create database logged template template0{}", strategy("wal_log")),
        "drop database copied".to_owned(),
        format!("create tablespace space location '{}'", spaces.display()),
        "create table in_space(i int) tablespace space; insert into in_space select generate_series(1, 1000); drop table in_space".to_owned(),
        "drop tablespace space".to_owned(),
        "select length(pg_logical_emit_message(true, 'big', repeat('0123456789abcdef', 2621440))::text)".to_owned(),
        "checkpoint".to_owned(),
        "select pg_switch_wal()".to_owned(),
        "update t set v = 'x'; delete from t where id % 2 = 0".to_owned(),
    ];
    for statement in statements {
        for part in statement.split(";\n") {
            server.sql(part);
        }
    }
    for compression in ["on", "pglz", "lz4", "zstd"] {
        // Not every build has every method: those that it has are used.
        if server.try_sql(&format!("alter system set wal_compression = {compression}")).is_ok() {
            server.sql("select pg_reload_conf()");
            server.sql("checkpoint");
            server.sql("insert into t(v) select repeat('compress me', 40) from generate_series(1, 500); update t set v = v || '!'");
        }
    }
    let mut pgbench = as_server_user(programs(18).join("pgbench"));
    pgbench.args(["-iq", "-s", "1", "-U", "postgres", "-h"]).arg(&server.sockets);
    run(pgbench.args(["-p", &server.port.to_string(), "postgres"]).stdin(Stdio::null()));
    let mut pgbench = as_server_user(programs(18).join("pgbench"));
    pgbench.args(["-n", "-c", "4", "-t", "200", "-U", "postgres", "-h"]).arg(&server.sockets);
    run(pgbench.args(["-p", &server.port.to_string(), "postgres"]));
}
