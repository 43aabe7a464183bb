//! No part of a secret is ever repeated: odd passwords at every place where one can be given, right and wrong, to every
//! command that reads it. What a command prints, and what it writes, is searched for each four characters of them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

use std::path::Path;
use std::process::Command;

/// As long as a piece must be to be one.
const PIECE: usize = 4;

/// Passwords with everything that has a meaning in addresses, in TOML, in shells or in connection strings.
fn secrets() -> Vec<String> {
    let mut all: Vec<String> = [
        "@", ":", "/", "?", "#", "%", " ", "'", "\"", "\n", "&", "=", "\\", "${", "}", ";", ",", "`", "é",
        "://", "@/", "/@", "?@", "%2", "]", "[", "\t",
    ]
    .iter()
    .map(|odd| format!("Zq7w{odd}Kx9v{odd}Jh5u"))
    .collect();
    all.extend(
        ["Zq7wKx9vJh5u", "12/Zq7wKx9v", "12?Zq7w=Kx9v", "/Zq7wKx9v", "@Zq7wKx9v", "-Zq7wKx9v", "12#Zq7wKx9v"]
            .map(str::to_owned),
    );
    all.push("Zq7wKx9vJh5u".repeat(400));
    all
}

/// A call: arguments, environment, and files of its directory that hold the secret rightly.
#[derive(Default)]
struct Call {
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    files: Vec<(&'static str, String)>,
}

impl Call {
    fn of(arguments: &[&str]) -> Self {
        Self { arguments: arguments.iter().map(|word| (*word).to_owned()).collect(), ..Self::default() }
    }

    fn config(mut self, text: String) -> Self {
        self.files.push(("everpoint.toml", text));
        self
    }

    fn file(mut self, name: &'static str, text: &str) -> Self {
        self.files.push((name, text.to_owned()));
        self
    }

    fn set(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }
}

fn toml(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            '\n' => "\\n".to_owned(),
            '\t' => "\\t".to_owned(),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

const REPOSITORY: &str = "[repository.local]\nurl = \"repo\"\n";
const CLUSTER: &str = "[cluster.db]\npostgres = \"postgres://u@127.0.0.1:1/d?sslmode=disable\"\n";

/// Another command for each secret and place: all together meet all.
fn turn<'a>(commands: &[&'a [&'a str]], number: usize) -> &'a [&'a str] {
    commands[number % commands.len()]
}

/// On the command line and in the environment.
fn spoken(secret: &str, round: usize) -> Vec<Call> {
    let mut calls = Vec::new();
    for address in [
        format!("postgres://u:{secret}@127.0.0.1:1/d"),
        format!("postgres://u:{}@127.0.0.1:1/d", encoded(secret)),
        // With one, what follows it is a host in form.
        format!("postgres://u:{}", secret.replace('@', "!")),
        format!("postgres://127.0.0.1:1/d?user=u&password={secret}"),
        format!("host=127.0.0.1 port=1 user=u password={secret}"),
        format!("host=127.0.0.1 port=1 user=u password='{secret}'"),
    ] {
        calls.push(Call::of(&["-vv", "protect", &address]));
    }
    let address = format!("postgres://u:{secret}@127.0.0.1:1/d");
    calls.push(Call::of(&["--json", "protect", &address]));
    calls.push(Call::of(&["--json", "protect", "postgres://u@127.0.0.1:1/d", secret]));
    calls.push(Call::of(&["backup", &address]).config(format!("{REPOSITORY}{CLUSTER}")));
    calls.push(Call::of(&["--json", "list", &address, "--repo", "/nowhere"]));
    calls.push(Call::of(&[&address]));
    for repo in [
        format!("s3://u:{secret}@bucket/p"),
        format!("sftp://{secret}@host/p"),
        format!("https://u:{secret}"),
        format!("u:{secret}@host/p"),
        format!("s3://bucket/p?secret={secret}"),
        format!("file://u:{secret}@host/p"),
    ] {
        let commands: [&[&str]; 5] =
            [&["list"], &["check", "db"], &["init"], &["restore", "db", "x"], &["-vv", "key", "confirm"]];
        calls.push(Call::of(&[&["--repo", &repo], turn(&commands, round + calls.len())].concat()));
    }
    let configured = format!("{REPOSITORY}{CLUSTER}");
    for variable in
        ["PGPASSWORD", "EVERPOINT_KEY", "PGSSLMODE", "PGPORT", "PGHOSTADDR", "PGSERVICE", "BACKUP_ENABLED"]
    {
        let command = turn(&[&["-vv", "check"], &["init"], &["--json", "status"]], round + calls.len());
        calls.push(Call::of(command).config(configured.clone()).set(variable, secret));
    }
    calls
}

/// In the configuration, well-formed and not, and in the files and commands that it names.
fn written(secret: &str, round: usize) -> Vec<Call> {
    let mut calls = Vec::new();
    let address = toml(&format!("postgres://u:{secret}@127.0.0.1:1/d"));
    let pairs = toml(&format!("host=127.0.0.1 port=1 user=u password={secret}"));
    let shell = secret.replace('\'', "'\\''");
    let tables = [
        format!("{REPOSITORY}[cluster.db]\npostgres = {address}\n"),
        format!("{REPOSITORY}[cluster.db]\npostgres = {pairs}\n"),
        format!("{REPOSITORY}[cluster.db]\npostgres = {address}\nworkers = \"x\"\nworker = 3\n"),
        format!("{REPOSITORY}[cluster.db]\nslot = {address}\npostgres = 5\n"),
        format!("{REPOSITORY}[cluster.db]\npostgres = \"postgres://u:{secret}@h/d\n"),
        format!("{REPOSITORY}[cluster.db]\npostgres = postgres://u:{secret}@h/d\n"),
        format!("{REPOSITORY}[cluster.db]\npostgres = [{address}, 5]\npassword = \"{secret}\"\n"),
        format!("{REPOSITORY}[cluster.{address}]\nx = 1\n"),
        format!("{REPOSITORY}{secret}\n{CLUSTER}"),
        format!("{REPOSITORY}{secret} = 1\n{CLUSTER}"),
        format!("[repository.local]\nurl = {}\n{CLUSTER}", toml(&format!("sftp://u:{secret}@host/p"))),
        format!("[repository.local]\nurl = {}\n{CLUSTER}", toml(&format!("u:{secret}@host/p"))),
        format!("[repository.local]\nurl = \"repo\"\nkey_file = \"key\"\n{CLUSTER}"),
        format!(
            "[repository.local]\nurl = \"repo\"\nkey_command = {}\n{CLUSTER}",
            toml(&format!("false '{shell}'"))
        ),
        format!(
            "[repository.local]\nurl = \"repo\"\nkey_command = {}\n{CLUSTER}",
            toml(&format!("printf %s '{shell}'"))
        ),
        // The secret in place of the command that prints it.
        format!("[repository.local]\nurl = \"repo\"\nkey_command = {}\n{CLUSTER}", toml(secret)),
        format!(
            "[repository.local]\nurl = \"repo\"\nkey_command = {}\n{CLUSTER}",
            toml(&format!("cat '/nowhere/{shell}' '{shell}'"))
        ),
        format!(
            "{REPOSITORY}{CLUSTER}[api]\nlisten = \"127.0.0.1:0\"\ntokens = [{{ name = \"a\", scope = \"read\", command = {} }}]\n",
            toml(secret)
        ),
        format!("{REPOSITORY}{CLUSTER}password_file = \"key\"\n"),
        format!(
            "{REPOSITORY}{CLUSTER}[api]\nlisten = \"127.0.0.1:0\"\ntokens = [{{ name = \"a\", scope = \"read\", file = \"key\" }}, {{ name = \"b\", scope = \"read\", file = \"key\" }}]\n"
        ),
        format!(
            "{REPOSITORY}{CLUSTER}[api]\nlisten = \"127.0.0.1:0\"\ntokens = [{{ name = \"a\", scope = \"read\", env = {} }}]\n",
            toml(secret)
        ),
        format!("{REPOSITORY}{CLUSTER}[[alerts.sink]]\ntype = \"slack\"\nurl = {}\n", toml(secret)),
        format!(
            "{REPOSITORY}{CLUSTER}[otel]\nendpoint = {}\n",
            toml(&format!("https://u:{secret}@127.0.0.1:1"))
        ),
    ];
    for text in tables {
        let commands: [&[&str]; 3] =
            [&["-vv", "check"], &["--json", "list"], &["archive-push", "db", "000000010000000000000001"]];
        calls.push(Call::of(turn(&commands, round + calls.len())).config(text.clone()).file("key", secret));
    }
    for offsite in [
        format!("type = \"http\"\nurl = {}\n", toml(&format!("http://u:{secret}@127.0.0.1:1/{{name}}"))),
        format!(
            "type = \"http\"\nurl = {}\nlist_url = {}\n",
            toml(&format!("http://127.0.0.1:1/{{name}}?sig={secret}")),
            toml(&format!("http://127.0.0.1:1/list?sig={secret}"))
        ),
        format!(
            "type = \"http\"\nurl = \"http://127.0.0.1:1/{{name}}\"\nlist_url = \"http://127.0.0.1:1/\"\nheaders = {{ Authorization = {} }}\n",
            toml(&format!("Bearer {secret}"))
        ),
        format!(
            "type = \"s3\"\nbucket = \"b\"\nendpoint = {}\naccess_key_file = \"key\"\nsecret_key_file = \"key\"\n",
            toml(&format!("http://u:{secret}@127.0.0.1:1"))
        ),
        format!("type = \"http\"\nurl = \"http://127.0.0.1:1/{{name}}\"\nrecipients = [{}]\n", toml(secret)),
        format!("type = \"command\"\nupload = [\"false\", {0}]\nlist = [\"false\", {0}]\n", toml(secret)),
        format!("type = \"command\"\nupload = [\"true\"]\nlist = [\"cat\", {0}]\n", toml(secret)),
        format!("type = \"command\"\nupload = [{0}]\nlist = [{0}]\n", toml(secret)),
        // As in the address of a webhook: who knows the path can write there.
        format!(
            "type = \"http\"\nurl = {0}\nlist_url = {0}\nhealth_url = {0}\n",
            toml(&format!("http://127.0.0.1:1/T000/{secret}/{{name}}"))
        ),
    ] {
        let text = format!("{REPOSITORY}{CLUSTER}[offsite.x]\n{offsite}");
        let command =
            turn(&[&["-vv", "offsite", "list"], &["--json", "offsite", "status"]], round + calls.len());
        calls.push(Call::of(command).config(text.clone()).file("key", secret));
    }
    calls
}

/// Each piece of a secret; of a very long one each that differs.
fn pieces(secret: &str) -> Vec<String> {
    let all: Vec<char> = secret.chars().collect();
    let mut found: Vec<String> = all.windows(PIECE).take(40).map(|piece| piece.iter().collect()).collect();
    // Those that tests and messages hold anyway.
    found.retain(|piece| piece.chars().any(|c| "Zqw7Kxv9Jhu5".contains(c)));
    found
}

/// What a call tells that it should not; `None` if nothing.
fn told(directory: &Path, call: &Call, secret: &str) -> Option<String> {
    let _ = std::fs::remove_dir_all(directory);
    std::fs::create_dir(directory).unwrap();
    std::fs::create_dir(directory.join("repo")).unwrap();
    std::fs::write(directory.join("repo/config"), std::fs::read(directory.with_file_name("clear")).unwrap())
        .unwrap();
    for (name, text) in &call.files {
        std::fs::write(directory.join(name), text).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_everpoint"));
    everpoint_testkit::clean(&mut command).current_dir(directory).args(&call.arguments);
    command.env("XDG_RUNTIME_DIR", directory).env("STATE_DIRECTORY", directory.join("state"));
    command.envs(call.environment.iter().map(|(name, value)| (name, value)));
    let ran = command.output().unwrap();
    let mut seen =
        [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let mut waiting = vec![directory.to_owned()];
    while let Some(place) = waiting.pop() {
        for entry in std::fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            let given = call.files.iter().any(|(name, text)| {
                path == directory.join(name) && std::fs::read(&path).is_ok_and(|now| now == text.as_bytes())
            });
            seen.push_str(&path.file_name().unwrap().to_string_lossy());
            if path.is_dir() {
                waiting.push(path);
            } else if !given {
                seen.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
            }
        }
    }
    pieces(secret).into_iter().find(|piece| seen.contains(piece)).map(|piece| format!("{piece:?} in: {seen}"))
}

#[test]
fn no_part_of_a_secret_is_ever_repeated() {
    let home = tempfile::tempdir().unwrap();
    let made = everpoint_testkit::clean(&mut Command::new(env!("CARGO_BIN_EXE_everpoint")))
        .current_dir(home.path())
        .args(["--repo", "./made", "init"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::copy(home.path().join("made/config"), home.path().join("clear")).unwrap();
    let work: Vec<(Call, String)> = secrets()
        .iter()
        .enumerate()
        .flat_map(|(round, secret)| {
            let all = spoken(secret, round).into_iter().chain(written(secret, round));
            all.map(|call| (call, secret.clone())).collect::<Vec<_>>()
        })
        .collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let leaks = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (work, next, leaks, home) = (&work, &next, &leaks, home.path());
            scope.spawn(move || {
                let directory = home.join(format!("w{thread}"));
                while let Some((call, secret)) =
                    work.get(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
                {
                    if let Some(told) = told(&directory, call, secret) {
                        let what =
                            format!("{:?} {:?} {:?}\n  {told}", call.arguments, call.environment, call.files);
                        leaks.lock().unwrap().push(what.chars().take(2000).collect::<String>());
                    }
                }
            });
        }
    });
    let leaks = leaks.into_inner().unwrap();
    assert!(
        leaks.is_empty(),
        "{} of {} calls:\n{}",
        leaks.len(),
        work.len(),
        leaks.iter().take(25).cloned().collect::<Vec<_>>().join("\n")
    );
}
