//! A bucket that speaks S3: a file is one PUT request, never a multipart upload (which would be many).

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::Url;
use reqwest::blocking::Client;
use reqwest::header::HeaderMap;
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};

use crate::http::{client, one_request, save, shown};
use crate::mask::{Secrets, clean};
use crate::upload::{Upload, upload};
use crate::{Counts, Entry, Provider, ProviderError, ProviderErrorKind, Receipt};

/// A signed address can be used for this long: longer than a connection may take.
const SIGNED: Duration = Duration::from_secs(600);
/// Answers to small questions.
const ASK: Duration = Duration::from_secs(60);
/// Bytes of one page of a list, which has at most 1000 names.
const ANSWER: u64 = 16 << 20;
/// Most bytes that S3 takes in one request.
const LARGEST: u64 = 5 << 30;

/// Where and how. Keys are secret: they are not shown.
#[derive(Clone)]
pub struct S3Options {
    /// Address of the service: `https://s3.eu-central-1.amazonaws.com`.
    pub endpoint: String,
    /// Region, as the service names it.
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// What names begin with in the bucket; empty, or `backups/`.
    pub prefix: String,
    /// The bucket is a part of the path instead of the host's name: for MinIO and others.
    pub path_style: bool,
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: String,
    /// Token of temporary credentials.
    pub session_token: Option<String>,
    /// Which requests count besides uploads.
    pub counts: Counts,
    /// Time for a whole upload or download.
    pub timeout: Duration,
    /// Time in which a byte of it must move.
    pub idle: Duration,
}

/// Such a bucket.
pub struct S3Provider {
    bucket: Bucket,
    credentials: Credentials,
    options: S3Options,
    client: Client,
    secrets: Secrets,
}

impl std::fmt::Debug for S3Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Provider").field("place", &self.describe()).finish_non_exhaustive()
    }
}

impl S3Provider {
    /// Checks the options; sends nothing.
    ///
    /// # Errors
    /// Kind `Usage`: the address or the bucket's name can't be one.
    pub fn new(options: S3Options) -> Result<Self, ProviderError> {
        let usage = |cause: String| {
            let object = format!("the bucket {}", options.bucket);
            ProviderError::new("use", object, ProviderErrorKind::Usage).unsent().cause(cause)
        };
        let endpoint: Url =
            options.endpoint.parse().map_err(|_| usage("its endpoint is no address".to_owned()))?;
        let style = if options.path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let (name, region) = (options.bucket.clone(), options.region.clone());
        let bucket = Bucket::new(endpoint, style, name, region).map_err(|error| usage(error.to_string()))?;
        let (key, secret) = (options.access_key.clone(), options.secret_key.clone());
        let credentials = match options.session_token.clone() {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        };
        let client = client(options.idle).build().map_err(|error| usage(error.to_string()))?;
        let mut secrets = Secrets::default();
        secrets.add(&options.secret_key);
        options.session_token.iter().for_each(|token| secrets.add(token));
        Ok(Self { bucket, credentials, options, client, secrets })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.options.prefix)
    }

    /// A file there, in words.
    fn object(&self, name: &str) -> String {
        format!("{}{name}", self.describe())
    }

    /// One page of the list, and where the next begins.
    fn page(&self, after: Option<&str>, found: &mut Vec<Entry>) -> Result<Option<String>, ProviderError> {
        let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
        action.with_prefix(self.options.prefix.clone());
        if let Some(after) = after {
            action.with_continuation_token(after.to_owned());
        }
        let url = action.sign(SIGNED);
        let object = self.describe();
        let failed =
            |cause: String| ProviderError::new("list", &object, ProviderErrorKind::Failed).cause(cause);
        let response = one_request("list", &object, self.client.get(url).timeout(ASK))?;
        let mut text = String::new();
        response.take(ANSWER).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
        let page = ListObjectsV2::parse_response(&text).map_err(|error| failed(error.to_string()))?;
        for object in page.contents {
            if let Some(name) = object.key.strip_prefix(self.options.prefix.as_str()) {
                found.push(Entry { name: clean(name), size: object.size });
            }
        }
        Ok(page.next_continuation_token)
    }
}

impl Provider for S3Provider {
    fn describe(&self) -> String {
        format!("{}/{}/{}", shown(&self.options.endpoint), self.options.bucket, self.options.prefix)
    }

    fn counts(&self) -> Counts {
        self.options.counts
    }

    fn upload(&self, name: &str, size: u64, body: Box<dyn Read + Send>) -> Result<Receipt, ProviderError> {
        let key = self.key(name);
        let url = self.bucket.put_object(Some(&self.credentials), &key).sign(SIGNED);
        let object = self.object(name);
        if size > LARGEST {
            let cause = "S3 takes at most 5 GiB in one request: set limit = \"5GiB\"";
            return Err(ProviderError::new("upload", object, ProviderErrorKind::Full).unsent().cause(cause));
        }
        let headers = HeaderMap::new();
        let (timeout, idle) = (self.options.timeout, self.options.idle);
        let request = Upload { method: Method::PUT, url: url.into(), headers, timeout, idle };
        upload(&object, request, size, body).map_err(|error| self.secrets.hide_in(error))
    }

    fn download(&self, name: &str, into: &mut dyn Write) -> Result<u64, ProviderError> {
        let key = self.key(name);
        let url = self.bucket.get_object(Some(&self.credentials), &key).sign(SIGNED);
        let object = self.object(name);
        let deadline = Instant::now() + self.options.timeout;
        one_request("download", &object, self.client.get(url))
            .and_then(|response| save(&object, response, into, deadline))
            .map_err(|error| self.secrets.hide_in(error))
    }

    fn list(&self) -> Result<Option<Vec<Entry>>, ProviderError> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.page(after.as_deref(), &mut found);
            after = page.map_err(|error| self.secrets.hide_in(error))?;
            // Where lists count, one question is one request: what stands on later pages stays unsaid.
            if after.is_none() || self.options.counts.list {
                return Ok(Some(found));
            }
        }
    }

    fn health(&self) -> Result<(), ProviderError> {
        let url = self.bucket.head_bucket(Some(&self.credentials)).sign(SIGNED);
        let object = self.describe();
        one_request("ask", &object, self.client.head(url).timeout(ASK))
            .map(drop)
            .map_err(|error| self.secrets.hide_in(error))
    }

    fn asks(&self) -> bool {
        !self.options.counts.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{MockOptions, MockServer};

    fn options(endpoint: &str) -> S3Options {
        S3Options {
            endpoint: endpoint.to_owned(),
            region: "eu-central-1".to_owned(),
            bucket: "vault".to_owned(),
            prefix: "packages/".to_owned(),
            path_style: true,
            access_key: "AKIDEXAMPLE".to_owned(),
            secret_key: "hidden".to_owned(),
            session_token: None,
            counts: Counts::default(),
            timeout: Duration::from_secs(10),
            idle: Duration::from_secs(10),
        }
    }

    #[test]
    fn a_file_is_one_signed_put_under_bucket_and_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let server = MockServer::start(&MockOptions::new(dir.path())).unwrap();
        let provider = S3Provider::new(options(&format!("http://{}", server.address()))).unwrap();
        let receipt = provider.upload("everpoint-1.age", 3, Box::new(&b"abc"[..])).unwrap();
        let stats = server.stats();
        assert_eq!(stats.uploads.len(), 1);
        assert_eq!(stats.uploads[0].path, "/vault/packages/everpoint-1.age");
        assert!(receipt.provider_date.is_some());
        let mut back = Vec::new();
        provider.download("everpoint-1.age", &mut back).unwrap();
        assert_eq!(back, b"abc");
        let said = format!("{receipt:?} {provider:?}");
        assert!(!said.contains("hidden") && !said.contains("Signature"), "{said}");
    }

    #[test]
    fn more_than_one_request_can_hold_is_refused_unsent() {
        let provider = S3Provider::new(options("http://127.0.0.1:9")).unwrap();
        let error = provider.upload("a", LARGEST + 1, Box::new(&b""[..])).unwrap_err();
        assert_eq!((error.kind, error.sent), (ProviderErrorKind::Full, false));
        assert!(!provider.upload("a", 0, Box::new(&b""[..])).unwrap_err().sent);
        assert!(S3Provider::new(S3Options { endpoint: "nowhere".to_owned(), ..options("") }).is_err());
    }
}
