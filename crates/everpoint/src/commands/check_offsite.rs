//! Lines of `check` about providers of daily packages: whether they can be reached, and asked what they have. No request is
//! made, so that no call is spent.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use everpoint_engine::{CheckLine, CheckState};

use crate::config::offsite::{CommandPlace, OffsiteConfig, OffsitePlace};

/// Time for a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Where one of these is set, requests go to a proxy, and a connection to the provider itself says nothing.
const PROXIES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// The lines about one provider.
pub(crate) fn lines(provider: &OffsiteConfig) -> Vec<CheckLine> {
    let name = format!("offsite.{}", provider.name);
    let line =
        |state, message: String, hint: Option<String>| CheckLine { name: name.clone(), state, message, hint };
    let mut lines = vec![match reach(&provider.place) {
        Ok(what) => line(CheckState::Ok, what, None),
        Err(why) => {
            let hint =
                format!("until it is mended no package leaves this machine; see [offsite.{}]", provider.name);
            line(CheckState::Warning, why, Some(hint))
        }
    }];
    if !provider.place.lists() {
        let message =
            "it can't be asked what it has: after the loss of this machine nobody knows what arrived there";
        let key = match &provider.place {
            OffsitePlace::Command(_) => "list = [\"PROGRAM\", …]",
            _ => "list_url = \"https://…\"",
        };
        let hint = format!(
            "add {key} to [offsite.{}] if the service has that, or note each package's name",
            provider.name
        );
        lines.push(line(CheckState::Warning, message.to_owned(), Some(hint)));
    }
    lines
}

/// What is there; else why nothing can be sent there.
fn reach(place: &OffsitePlace) -> Result<String, String> {
    match place {
        OffsitePlace::Filesystem { path, below, .. } => {
            let there = path.is_dir() || below.as_ref().is_some_and(|below| below.is_dir());
            let shown = path.display();
            let writes =
                || rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
            if there && path.is_dir() && writes().is_err() {
                Err(format!("the directory {shown} can't be written to by the user who runs this"))
            } else if there {
                Ok(format!("{shown} is there"))
            } else {
                Err(format!("the directory {shown} is not there; is it mounted?"))
            }
        }
        OffsitePlace::Http(place) => connect(place.url.expose()),
        OffsitePlace::S3(place) => connect(&place.endpoint),
        OffsitePlace::Command(place) => runnable(place),
    }
}

fn connect(url: &str) -> Result<String, String> {
    let Some((host, port)) = host_and_port(url) else {
        return Err("its address names no host".to_owned());
    };
    if PROXIES.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
        return Ok(format!(
            "{host} is asked through a proxy: whether it can be reached is seen when a package is sent"
        ));
    }
    let addresses =
        (host.as_str(), port).to_socket_addrs().map_err(|error| format!("{host} can't be found: {error}"))?;
    let mut why = "it has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(_) => return Ok(format!("{host}:{port} can be reached; no call was spent on asking more")),
            Err(error) => why = error.to_string(),
        }
    }
    Err(format!("{host}:{port} can't be reached: {why}"))
}

/// Host and port of an address; never what else stands in it.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let usual = if scheme.eq_ignore_ascii_case("http") { 80 } else { 443 };
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let port = port.map_or(Some(usual), |port| port.parse().ok())?;
    (!name.is_empty()).then(|| (name.to_owned(), port))
}

fn runnable(place: &CommandPlace) -> Result<String, String> {
    let Some(program) = place.upload.first() else { return Err("it has no program for uploads".to_owned()) };
    let executable =
        |path: &Path| path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    let found = if program.contains('/') {
        executable(Path::new(program))
    } else {
        let places = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&places).any(|place| executable(&place.join(program)))
    };
    if found {
        Ok(format!("{program} is there"))
    } else {
        Err(format!("the program {program} is not there, or can't be run"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn provider(table: &str) -> OffsiteConfig {
        let text = format!("[repository.local]\nurl = \"/r\"\n[offsite.vault]\n{table}");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("everpoint.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(&file).unwrap().offsite.remove("vault").unwrap()
    }

    #[test]
    fn what_can_not_be_reached_or_asked_is_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().display().to_string();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for (table, warnings) in [
            (format!("type = \"filesystem\"\npath = \"{place}\"\n"), 0),
            (format!("type = \"filesystem\"\npath = \"{place}/x/y\"\n"), 1),
            (
                format!(
                    "type = \"http\"\nurl = \"http://u:s3cret@127.0.0.1:{port}/\"\nlist_url = \"http://127.0.0.1:{port}/list\"\n"
                ),
                0,
            ),
            (format!("type = \"http\"\nurl = \"http://127.0.0.1:{port}/\"\n"), 1),
            (format!("type = \"http\"\nurl = \"http://u:s3cret@127.0.0.1:{closed}/?token=s3cret\"\n"), 2),
            ("type = \"command\"\nupload = [\"/bin/sh\", \"{file}\"]\n".to_owned(), 1),
            (
                "type = \"command\"\nupload = [\"/no/such/program\", \"{file}\"]\nlist = [\"/bin/sh\"]\n"
                    .to_owned(),
                1,
            ),
        ] {
            let lines = lines(&provider(&table));
            let found = lines.iter().filter(|line| line.state == CheckState::Warning).count();
            assert_eq!(found, warnings, "{table}: {lines:?}");
            assert!(!format!("{lines:?}").contains("s3cret"), "{lines:?}");
            assert!(lines.iter().all(|line| line.state == CheckState::Ok || line.hint.is_some()));
        }
    }

    #[test]
    fn only_host_and_port_are_taken_from_an_address() {
        let at = |url: &str| host_and_port(url).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(at("https://u:p@vault.example/x?y").as_deref(), Some("vault.example 443"));
        assert_eq!(at("http://[::1]:8080/").as_deref(), Some("::1 8080"));
        assert_eq!(at("http://vault").as_deref(), Some("vault 80"));
        assert_eq!(at("vault"), None);
    }
}
