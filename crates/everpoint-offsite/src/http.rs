//! A service that takes a file as the body of one PUT or POST.
//!
//! One call of the trait is at most one request: no redirect is followed, no connection is used twice (a request on a
//! connection that was just closed would be sent again), nothing is tried again.

use std::error::Error as _;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::blocking::{Client, ClientBuilder, RequestBuilder, Response};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, redirect};
use serde::Deserialize;

use crate::mask::{Secrets, clean};
use crate::upload::{Upload, upload};
use crate::{Counts, Entry, Provider, ProviderError, ProviderErrorKind, Receipt, template};

/// A connection stands within this time, TLS included, or the request is not sent.
pub(crate) const CONNECT: Duration = Duration::from_secs(20);
/// A server that neither takes nor gives a byte for so long has stalled.
pub(crate) const IDLE: Duration = Duration::from_secs(300);
/// Bytes of a download that are read at a time.
const CHUNK: usize = 256 << 10;
/// Answers to small questions.
const ASK: Duration = Duration::from_secs(60);
/// Bytes of an answer that are read for its meaning.
const ANSWER: u64 = 4 << 20;
/// Bytes of an answer that are shown.
pub(crate) const SHOWN: usize = 300;
/// How the program names itself.
pub(crate) const USER_AGENT: &str = concat!("everpoint/", env!("CARGO_PKG_VERSION"));

/// How a file is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HttpMethod {
    /// PUT
    #[default]
    Put,
    /// POST
    Post,
}

/// Where and how. Headers are secret: they are not shown.
#[derive(Clone)]
pub struct HttpOptions {
    /// Where files go; `{name}` stands for the name.
    pub url: String,
    /// Where files are fetched; `None`: where they go.
    pub download_url: Option<String>,
    /// Answers with a JSON list of files; `None`: can't be asked.
    pub list_url: Option<String>,
    /// Answers with 2xx if it is well; `None`: can't be asked.
    pub health_url: Option<String>,
    /// How a file is sent.
    pub method: HttpMethod,
    /// Headers of every request.
    pub headers: Vec<(String, String)>,
    /// Which requests count besides uploads.
    pub counts: Counts,
    /// Time for a whole upload or download.
    pub timeout: Duration,
    /// Time in which a byte of it must move.
    pub idle: Duration,
}

impl HttpOptions {
    /// PUT to `url`, 6 h for a file, 5 min without a byte, nothing else.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            download_url: None,
            list_url: None,
            health_url: None,
            method: HttpMethod::Put,
            headers: Vec::new(),
            counts: Counts::default(),
            timeout: Duration::from_secs(6 * 3600),
            idle: IDLE,
        }
    }

    /// For the mock at `base` (`http://127.0.0.1:8099`), which can be asked.
    #[must_use]
    pub fn mock(base: &str) -> Self {
        let base = base.trim_end_matches('/');
        Self {
            list_url: Some(format!("{base}/list")),
            health_url: Some(format!("{base}/health")),
            ..Self::new(format!("{base}/upload/{{name}}"))
        }
    }
}

/// Such a service.
pub struct HttpProvider {
    options: HttpOptions,
    client: Client,
    headers: HeaderMap,
    place: String,
    secrets: Secrets,
}

impl HttpProvider {
    /// Checks the options; sends nothing.
    ///
    /// # Errors
    /// Kind `Usage`: an address or a header can't be one.
    pub fn new(options: HttpOptions) -> Result<Self, ProviderError> {
        let place = shown(&options.url);
        let usage = |cause: String| {
            ProviderError::new("use", place.clone(), ProviderErrorKind::Usage).unsent().cause(cause)
        };
        let urls = [Some(&options.url), options.download_url.as_ref(), options.list_url.as_ref()];
        let mut secrets = Secrets::default();
        for url in urls.into_iter().flatten().chain(&options.health_url) {
            secrets.address(url);
            let good = reqwest::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
            if !good {
                return Err(usage(format!("{} is no http or https address", shown(url))));
            }
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &options.headers {
            secrets.header(value);
            let known =
                HeaderName::try_from(name).map_err(|_| usage(format!("no header is called {name}")))?;
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| usage(format!("the value of {name} can't be that of a header")))?;
            value.set_sensitive(true);
            headers.append(known, value);
        }
        let client = client(options.idle).default_headers(headers.clone());
        let client = client.build().map_err(|error| usage(chain(&error)))?;
        Ok(Self { options, client, headers, place, secrets })
    }

    fn ask(&self, operation: &'static str, url: &str) -> Result<Response, ProviderError> {
        one_request(operation, &shown(url), self.client.get(url).timeout(ASK))
    }

    fn fetch(&self, name: &str, into: &mut dyn Write) -> Result<u64, ProviderError> {
        let template = self.options.download_url.as_ref().unwrap_or(&self.options.url);
        if !template.contains("{name}") {
            let cause = "no address is known under which it gives files back: set download_url";
            return Err(ProviderError::new("download from", &self.place, ProviderErrorKind::Unsupported)
                .unsent()
                .cause(cause));
        }
        let url = template::in_url(template, name);
        let deadline = Instant::now() + self.options.timeout;
        let object = format!("{name} from {}", shown(&url));
        save(&object, one_request("download", &object, self.client.get(&url))?, into, deadline)
    }

    fn files(&self, url: &str) -> Result<Vec<Entry>, ProviderError> {
        let failed =
            |cause: String| ProviderError::new("list", shown(url), ProviderErrorKind::Failed).cause(cause);
        let mut bytes = Vec::new();
        let response = self.ask("list", url)?;
        response.take(ANSWER).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
        understand(&bytes).map_err(|error| failed(format!("its answer is no list of files in JSON: {error}")))
    }
}

impl std::fmt::Debug for HttpProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpProvider").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A client that sends each request once. A request without a time of its own waits so long for the answer, and for each
/// piece of it.
pub(crate) fn client(idle: Duration) -> ClientBuilder {
    Client::builder()
        .timeout(idle)
        // By itself the client gives up where nothing was acknowledged for 30 s.
        .tcp_user_timeout(idle)
        .connect_timeout(CONNECT)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(0)
        .http1_only()
        .user_agent(USER_AGENT)
}

/// An address without what may be secret: user, password, path (that of a webhook is one), query, fragment. Where a password
/// holds what ends a host, nothing but the scheme is sure to be no part of it.
pub(crate) fn shown(url: &str) -> String {
    let Some((scheme, rest)) =
        url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
    else {
        return "an address without http:// or https://".to_owned();
    };
    let hidden = || format!("{scheme}://***");
    let plain = rest.split(['?', '#']).next().unwrap_or_default();
    let host = plain.split('/').next().unwrap_or_default();
    let (user, host) = host.rsplit_once('@').map_or(("", host), |(user, host)| (user, host));
    let behind = rest.rsplit_once('@').is_some_and(|(before, _)| before.len() > user.len());
    let ends = user.contains(['@', '?', '#', ' ']);
    if behind || ends || reqwest::Url::parse(&format!("{scheme}://{host}/")).is_err() {
        return hidden();
    }
    format!("{scheme}://{host}")
}

/// Sends a request and tells what its failure means.
pub(crate) fn one_request(
    operation: &'static str,
    object: &str,
    request: RequestBuilder,
) -> Result<Response, ProviderError> {
    let response = request.send().map_err(|error| broken(operation, object, error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let date = date(response.headers());
    let mut error = ProviderError::new(operation, object, kind(status));
    error.provider_date = date;
    Err(error.cause(answer(status, response)))
}

/// Before a connection stood, and before there was a request, nothing can have been sent.
pub(crate) fn broken(operation: &'static str, object: &str, error: reqwest::Error) -> ProviderError {
    // Its address may hold a signature.
    let error = error.without_url();
    let text = chain(&error);
    if error.is_connect() {
        return ProviderError::new(operation, object, ProviderErrorKind::Unreachable).unsent().cause(text);
    }
    if error.is_builder() {
        return ProviderError::new(operation, object, ProviderErrorKind::Usage).unsent().cause(text);
    }
    let kind = if error.is_timeout() { ProviderErrorKind::Stalled } else { ProviderErrorKind::Failed };
    ProviderError::new(operation, object, kind).cause(text)
}

pub(crate) fn kind(status: StatusCode) -> ProviderErrorKind {
    match status {
        StatusCode::TOO_MANY_REQUESTS => ProviderErrorKind::NoCallLeft,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ProviderErrorKind::Denied,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::INSUFFICIENT_STORAGE => ProviderErrorKind::Full,
        StatusCode::NOT_FOUND => ProviderErrorKind::NotFound,
        _ => ProviderErrorKind::Failed,
    }
}

/// The status and the beginning of what was said.
fn answer(status: StatusCode, response: Response) -> String {
    let mut bytes = Vec::new();
    // What can't be read of an answer that is a failure anyway changes nothing.
    let _ = response.take(SHOWN as u64).read_to_end(&mut bytes);
    said(status, &bytes)
}

/// A status and the beginning of what was said, without what a terminal would obey.
pub(crate) fn said(status: StatusCode, bytes: &[u8]) -> String {
    let said = clean(&String::from_utf8_lossy(bytes));
    format!("it answered {status}: {said}").trim_end_matches([':', ' ']).to_owned()
}

/// All causes in one line.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// The `Date` of an answer, microseconds since 1970 UTC.
pub(crate) fn date(headers: &HeaderMap) -> Option<i64> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    Some(DateTimeParser::new().parse_timestamp(text).ok()?.as_microsecond())
}

/// Copies an answer's body; a body that is shorter than it said is an error of reading.
pub(crate) fn save(
    object: &str,
    mut response: Response,
    into: &mut dyn Write,
    deadline: Instant,
) -> Result<u64, ProviderError> {
    let (mut piece, mut taken) = (vec![0; CHUNK], 0);
    let wrong = |kind| ProviderError::new("download", object, kind);
    loop {
        if Instant::now() >= deadline {
            let cause = "it took longer than timeout allows";
            return Err(wrong(ProviderErrorKind::Failed).cause(cause));
        }
        match response.read(&mut piece) {
            Ok(0) => return Ok(taken),
            Ok(read) => {
                let bytes = piece.get(..read).unwrap_or_default();
                into.write_all(bytes).map_err(|error| wrong(ProviderErrorKind::Failed).cause(error))?;
                taken += read as u64;
            }
            Err(error) if timed_out(&error) => {
                let cause = format!("it stands still after {taken} bytes");
                return Err(wrong(ProviderErrorKind::Stalled).cause(cause));
            }
            Err(error) => return Err(wrong(ProviderErrorKind::Failed).cause(error)),
        }
    }
}

fn timed_out(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<reqwest::Error>());
    error.kind() == io::ErrorKind::TimedOut || inner.is_some_and(reqwest::Error::is_timeout)
}

/// The shapes of lists that are understood.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listing {
    Named { files: Vec<Item> },
    Bare(Vec<Item>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Entry(Entry),
    Name(String),
}

fn understand(bytes: &[u8]) -> Result<Vec<Entry>, serde_json::Error> {
    let items = match serde_json::from_slice(bytes)? {
        Listing::Named { files } => files,
        Listing::Bare(items) => items,
    };
    let entry = |item| match item {
        Item::Entry(entry) => Entry { name: clean(&entry.name), ..entry },
        Item::Name(name) => Entry { name: clean(&name), size: None },
    };
    Ok(items.into_iter().map(entry).collect())
}

impl Provider for HttpProvider {
    fn describe(&self) -> String {
        self.place.clone()
    }

    fn counts(&self) -> Counts {
        self.options.counts
    }

    fn upload(&self, name: &str, size: u64, body: Box<dyn Read + Send>) -> Result<Receipt, ProviderError> {
        let url = template::in_url(&self.options.url, name);
        let method = match self.options.method {
            HttpMethod::Put => Method::PUT,
            HttpMethod::Post => Method::POST,
        };
        let mut headers = self.headers.clone();
        if url == self.options.url && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
            // The address does not tell the name.
            let said = HeaderValue::try_from(format!("attachment; filename=\"{name}\""));
            said.into_iter().for_each(|said| drop(headers.insert(header::CONTENT_DISPOSITION, said)));
        }
        let object = shown(&url);
        let (timeout, idle) = (self.options.timeout, self.options.idle);
        upload(&object, Upload { method, url, headers, timeout, idle }, size, body)
            .map_err(|error| self.secrets.hide_in(error))
    }

    fn download(&self, name: &str, into: &mut dyn Write) -> Result<u64, ProviderError> {
        self.fetch(name, into).map_err(|error| self.secrets.hide_in(error))
    }

    fn list(&self) -> Result<Option<Vec<Entry>>, ProviderError> {
        let files = self.options.list_url.as_ref().map(|url| self.files(url)).transpose();
        files.map_err(|error| self.secrets.hide_in(error))
    }

    fn health(&self) -> Result<(), ProviderError> {
        match &self.options.health_url {
            Some(url) => self.ask("ask", url).map(drop).map_err(|error| self.secrets.hide_in(error)),
            None => Ok(()),
        }
    }

    fn asks(&self) -> bool {
        self.options.list_url.is_some() && !self.options.counts.list
    }
}

#[cfg(test)]
mod tests;
