//! Restores that are refused.

use std::os::unix::fs::symlink;

use super::*;

const PATH: &str = "/api/v1/clusters/shop/restore";

/// Names the directory of restores in the configuration, which is read for each request.
fn configure(served: &Served, directory: &Path) {
    let config = &served.daemon.config;
    let text = std::fs::read_to_string(config).unwrap();
    std::fs::write(config, format!("{text}restore_dir = \"{}\"\n", directory.display())).unwrap();
}

#[test]
fn restores_are_off_until_a_directory_is_named_and_there() {
    let served = serve(true);
    let off = served.post(PATH, &json!({"directory": "copy"}));
    assert_eq!((off.status, off.code().as_str()), (409, "api.no_restore_dir"));
    assert!(off.json()["error"]["hint"].as_str().unwrap().contains("restore_dir"), "{}", off.body);
    let below = served.home.path().join("restored");
    configure(&served, &below);
    let missing = served.post(PATH, &json!({"directory": "copy"}));
    assert_eq!((missing.status, missing.code().as_str()), (409, "api.no_restore_dir"));
    assert!(!below.exists(), "it may be the place of a disk that is not mounted");
}

#[test]
fn what_a_restore_can_not_use_is_named_and_nothing_is_written() {
    let served = serve(true);
    let below = served.home.path().join("restored");
    std::fs::create_dir_all(below.join("full/of")).unwrap();
    std::fs::write(below.join("file"), "").unwrap();
    symlink(served.home.path(), below.join("link")).unwrap();
    configure(&served, &below);
    let refused = |field: &str, body: Value| {
        let got = served.post(PATH, &body);
        assert_eq!((got.status, &got.json()["error"]["fields"][0]["field"]), (422, &json!(field)), "{body}");
    };
    for name in ["", ".", "..", ".hidden", "../up", "a/b", "/etc", "a b"] {
        refused("directory", json!({"directory": name}));
    }
    refused("directory", json!({}));
    refused("to", json!({"directory": "copy", "to": "2026-01-29 14:30:00"}));
    refused("to", json!({"directory": "copy", "to": "yesterday"}));
    refused("timeline", json!({"directory": "copy", "timeline": 0}));
    refused("exclusive", json!({"directory": "copy", "exclusive": "true"}));
    for unknown in ["start", "map", "delta"] {
        refused(unknown, json!({"directory": "copy", unknown: true}));
    }
    for taken in ["full", "file", "link"] {
        let got = served.post(PATH, &json!({"directory": taken}));
        assert_eq!((got.status, got.code().as_str()), (409, "restore.directory"), "{taken}");
    }
    let nobody = served.post("/api/v1/clusters/nobody/restore", &json!({"directory": "copy"}));
    assert_eq!(nobody.status, 404);
    let short = served.post(PATH, &json!({"directory": "copy"}));
    assert_eq!((short.status, short.code().as_str()), (422, "restore.shortfall"));
    assert!(short.json()["error"]["hint"].is_string());
    assert!(served.daemon.asked.lock().unwrap().is_empty(), "no job was begun");
    assert_eq!(std::fs::read_dir(&below).unwrap().count(), 3, "nothing was made");
}
