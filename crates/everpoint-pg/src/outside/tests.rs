//! Trees of configuration files in scratch directories.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use std::path::PathBuf;

use super::*;

struct Trees {
    _scratch: tempfile::TempDir,
    data: PathBuf,
    etc: PathBuf,
}

fn trees() -> Trees {
    let scratch = tempfile::tempdir().unwrap();
    let (data, etc) = (scratch.path().join("data"), scratch.path().join("etc"));
    for directory in [&data, &etc, &etc.join("conf.d")] {
        fs::create_dir_all(directory).unwrap();
    }
    Trees { _scratch: scratch, data, etc }
}

impl Trees {
    fn started_with_etc(&self) {
        let noted = format!(
            "/usr/bin/postgres \"-D\" \"{}\" \"-c\" \"config_file={}/postgresql.conf\"\n",
            self.data.display(),
            self.etc.display()
        );
        fs::write(self.data.join("postmaster.opts"), noted).unwrap();
    }

    fn names(&self, found: &Outside) -> Vec<String> {
        let short = |path: &str| path.strip_prefix(self.etc.to_str().unwrap()).unwrap_or(path).to_owned();
        found.files.iter().map(|file| short(&file.path)).collect()
    }
}

#[test]
fn all_that_lies_outside_is_found_without_a_role_that_sees_settings() {
    let trees = trees();
    let (data, etc) = (&trees.data, &trees.etc);
    trees.started_with_etc();
    let shown = etc.display();
    let main = format!(
        "# \u{e4}\ninclude_dir 'conf.d'\ninclude_if_exists = 'nowhere'\n  include \"more.conf\" # x\n#include 'no.conf'\n\
         hba_file = '{shown}/pg_hba.conf'\nident_file = '{shown}/pg_ident.conf'\n"
    );
    // Not UTF-8: the rest of the file counts all the same.
    let main: Vec<u8> = main.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    fs::write(etc.join("postgresql.conf"), &main).unwrap();
    fs::write(etc.join("more.conf"), format!("include 'postgresql.conf'\nssl_key_file = '{shown}/key'\n"))
        .unwrap();
    for (name, text) in [
        ("no.conf", ""),
        ("conf.d/a.conf", "ssl=on"),
        ("conf.d/a.txt", ""),
        ("pg_hba.conf", "local all @people peer\ninclude_if_exists none\n"),
        ("people", "a b"),
        ("pg_ident.conf", ""),
        ("start.conf", "auto"),
        ("key", "secret"),
    ] {
        fs::write(etc.join(name), text).unwrap();
    }
    fs::set_permissions(etc.join("key"), fs::Permissions::from_mode(0o640)).unwrap();
    let found = look(None, Some(data));
    let expected = [
        "/conf.d/a.conf",
        "/key",
        "/more.conf",
        "/people",
        "/pg_hba.conf",
        "/pg_ident.conf",
        "/postgresql.conf",
        "/start.conf",
    ];
    assert_eq!(trees.names(&found), expected);
    let conf = found.files.iter().find(|file| file.path.ends_with("postgresql.conf")).unwrap();
    assert_eq!(conf.bytes, main);
    // The certificate is at its default place inside, and is not there.
    assert_eq!(found.lacks.len(), 0, "{:?}", found.lacks);
    let facts = found.facts();
    let fact = |name: &str| facts.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    assert!(fact(&format!("external {shown}/key")).unwrap().ends_with(" 0640"));
    assert_eq!(fact("config_file").unwrap(), format!("{shown}/postgresql.conf"));
    assert_eq!(fact("ssl_key_file").unwrap(), format!("{shown}/key"));
}

#[test]
fn a_link_that_leads_out_stands_for_what_it_names() {
    let trees = trees();
    let (data, etc) = (&trees.data, &trees.etc);
    fs::write(etc.join("main.conf"), "include 'other.conf'\n").unwrap();
    fs::write(etc.join("other.conf"), "").unwrap();
    fs::write(data.join("other.conf"), "port = 1\n").unwrap();
    fs::write(data.join("pg_hba.conf"), "").unwrap();
    fs::write(data.join("pg_ident.conf"), "").unwrap();
    symlink(etc.join("main.conf"), data.join("postgresql.conf")).unwrap();
    fs::create_dir(data.join("pg_tblspc")).unwrap();
    symlink("/somewhere", data.join("pg_tblspc/16400")).unwrap();
    symlink("/elsewhere", data.join("pg_wal")).unwrap();
    let found = look(None, Some(data));
    // An include is looked for beside the link, as the server does.
    assert_eq!(trees.names(&found), ["/main.conf"]);
    let target = etc.join("main.conf").display().to_string();
    assert_eq!(found.links, [("postgresql.conf".to_owned(), target)]);
    assert!(found.lacks.is_empty(), "{:?}", found.lacks);
}

#[test]
fn what_can_not_be_read_is_named() {
    let trees = trees();
    trees.started_with_etc();
    let main = "include 'gone.conf'\nssl = on\nssl_key_file = '/nowhere/key'\nssl_ca_file = '/nowhere/ca'\n";
    fs::write(trees.etc.join("postgresql.conf"), main).unwrap();
    let found = look(None, Some(&trees.data));
    let gone = trees.etc.join("gone.conf").display().to_string();
    let named: Vec<&str> = found.lacks.keys().map(String::as_str).collect();
    let inside = |name: &str| trees.data.join(name).display().to_string();
    let [key, ca] = ["/nowhere/key", "/nowhere/ca"].map(str::to_owned);
    // No server starts without one of these.
    let mut expected = [gone, key, ca, inside("pg_hba.conf"), inside("pg_ident.conf")];
    expected.sort();
    assert_eq!(named, expected);
    assert!(found.lacking().unwrap().contains("/nowhere/key (it is not there)"));
}

#[test]
fn what_a_server_needs_and_does_not_find_is_told_from_what_it_can_do_without() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, etc) = (scratch.path().join("data"), scratch.path().join("etc"));
    std::fs::create_dir(&data).unwrap();
    std::fs::create_dir(&etc).unwrap();
    let config = etc.join("postgresql.conf");
    let lacks = |ssl: &str| {
        let text = format!(
            "ssl = {ssl}\nssl_key_file = '{0}/key'\nssl_ca_file = '{0}/ca'\nssl_crl_dir = '{0}/crl'\ninclude_if_exists 'may'\n\
             hba_file = '{0}/hba'\ninclude 'must'\n",
            etc.display()
        );
        std::fs::write(&config, text).unwrap();
        let found = lacking(&data, &config, &[]);
        assert!(found.values().all(|missing| *missing));
        let names = found.keys().filter_map(|path| path.strip_prefix(&etc).ok()?.to_str().map(str::to_owned));
        names.collect::<Vec<_>>()
    };
    assert_eq!(lacks("on"), ["ca", "hba", "key", "must"]);
    for off in ["off", "FALSE", "no", "0", "of", "f"] {
        assert_eq!(lacks(off), ["hba", "must"], "{off}");
    }
}
