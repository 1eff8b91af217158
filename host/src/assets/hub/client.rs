//! Requests to the hub, and what its refusals mean.
//!
//! hf-hub's own requests send the user's token on to wherever the hub redirects, and take no account of `Retry-After` or of an
//! answer that ignores a range; so requests are made here, and hf-hub says where things are and how its cache is laid out.

use std::time::{Duration, SystemTime};

use ureq::http::{Method, Request, Response, StatusCode, Uri};
use ureq::{Agent, Body};

use super::HubOptions;

/// Most redirections that are followed.
const REDIRECTIONS: usize = 10;
/// The longest wait that the hub may ask for.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Why a request gave nothing.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Trying again would not help.
    Final(String),
    /// It may be different in a while, for which the hub may ask for so long.
    Passing(String, Option<Duration>),
}

/// What the hub says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileInfo {
    /// The file's name in the cache: the SHA-256 of a large one, a git hash of others.
    pub etag: String,
    /// The commit that the revision names.
    pub commit: String,
    /// Bytes, where the hub says so.
    pub size: Option<u64>,
}

/// What is asked of an address.
#[derive(Debug, Clone, Copy)]
enum Ask {
    /// All that is there.
    All,
    /// All from a byte on.
    From(u64),
    /// Only what would be sent along with it. It is not followed to another server, which would not know.
    About,
}

/// Makes requests for one repository.
pub(super) struct Client {
    agent: Agent,
    endpoint: Uri,
    token: Option<String>,
    /// The repository, `owner/name`.
    id: String,
    /// Where a person reads about it.
    page: String,
    revision: String,
}

/// Whether a word can be the name of a file or folder of the cache.
pub(super) fn is_name(word: &str) -> bool {
    !word.is_empty() && !word.contains(['/', '\\']) && !word.starts_with('.')
}

fn header(response: &Response<Body>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.trim().to_owned())
}

impl Client {
    /// For a repository (`owner/name`, `page` on the hub) at a revision.
    pub(super) fn new(options: &HubOptions, id: &str, page: &str, revision: &str) -> Result<Self, String> {
        let endpoint = options.endpoint.trim_end_matches('/');
        let agent = Agent::config_builder()
            .user_agent(concat!("llmcb-host/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Sizes and ranges are those of the file itself.
            .accept_encoding("identity")
            .timeout_connect(Some(options.connect_timeout))
            .timeout_per_read(Some(options.stall_timeout))
            .build();
        Ok(Self {
            agent: agent.into(),
            endpoint: endpoint.parse().map_err(|e| format!("HF_ENDPOINT `{endpoint}`: {e}"))?,
            token: options.token.clone(),
            id: id.to_owned(),
            page: format!("{endpoint}/{page}"),
            revision: revision.to_owned(),
        })
    }

    /// Whether an address is the hub's own, which alone sees the token.
    fn is_hub(&self, url: &Uri) -> bool {
        url.scheme() == self.endpoint.scheme() && url.authority() == self.endpoint.authority()
    }

    /// One request, without following where it leads.
    fn once(&self, url: &Uri, ask: Ask) -> Result<Response<Body>, Refusal> {
        let method = if matches!(ask, Ask::About) { Method::HEAD } else { Method::GET };
        let mut request = Request::builder().method(method).uri(url);
        if let Ask::From(byte) = ask {
            request = request.header("Range", format!("bytes={byte}-"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| self.is_hub(url)) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let request = request.body(()).map_err(|e| match self.token.is_some() {
            true => Refusal::Final(format!("HF_TOKEN cannot be sent: {e}")),
            false => Refusal::Final(format!("the address {url}: {e}")),
        })?;
        self.agent.run(request).map_err(|e| Refusal::Passing(e.to_string(), None))
    }

    /// A request, followed to where it leads; `visit` sees every answer on the way.
    fn follow(
        &self,
        url: &str,
        ask: Ask,
        mut visit: impl FnMut(&Response<Body>),
    ) -> Result<Response<Body>, Refusal> {
        let wrong = |url: &str, e: &dyn std::fmt::Display| Refusal::Final(format!("the address {url}: {e}"));
        let mut url: Uri = url.parse().map_err(|e| wrong(url, &e))?;
        for _ in 0..REDIRECTIONS {
            let response = self.once(&url, ask)?;
            visit(&response);
            let Some(location) = header(&response, "location").filter(|_| response.status().is_redirection())
            else {
                return match response.status().is_success() {
                    true => Ok(response),
                    false => Err(self.refusal(&response)),
                };
            };
            url = match location.starts_with('/') {
                // Relative to where we are.
                true => {
                    let (scheme, authority) = (url.scheme_str().unwrap_or("https"), url.authority());
                    let authority = authority.map_or("", |authority| authority.as_str());
                    format!("{scheme}://{authority}{location}").parse().map_err(|e| wrong(&location, &e))?
                }
                false => location.parse().map_err(|e| wrong(&location, &e))?,
            };
            if matches!(ask, Ask::About) && !self.is_hub(&url) {
                return Ok(response);
            }
        }
        Err(Refusal::Final(format!("it was redirected more than {REDIRECTIONS} times")))
    }

    /// The text of an answer.
    pub(super) fn text(&self, url: &str) -> Result<String, Refusal> {
        let mut response = self.follow(url, Ask::All, |_| {})?;
        response.body_mut().read_to_string().map_err(|e| Refusal::Passing(e.to_string(), None))
    }

    /// What the hub says of a file: it does so in the first answers that have it, where a redirection leads elsewhere for the contents.
    pub(super) fn file_info(&self, url: &str) -> Result<FileInfo, Refusal> {
        let (mut etag, mut commit, mut size) = (None, None, None);
        let answer = self.follow(url, Ask::About, |response| {
            let of = |name: &str| header(response, name);
            etag = etag.take().or_else(|| of("x-linked-etag"));
            commit = commit.take().or_else(|| of("x-repo-commit"));
            size = size.take().or_else(|| of("x-linked-size"));
        })?;
        let etag = etag.or_else(|| header(&answer, "etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
        let (Some(etag), Some(commit)) =
            (etag.filter(|word| is_name(word)), commit.filter(|word| is_name(word)))
        else {
            return Err(Refusal::Final(
                "the answer has no `etag` and `x-repo-commit`; is HF_ENDPOINT a hub?".to_owned(),
            ));
        };
        // The length of a redirection is that of its own text.
        let own = || header(&answer, "content-length").filter(|_| answer.status().is_success());
        let size = size.or_else(own).and_then(|size| size.parse().ok());
        Ok(FileInfo { etag, commit, size })
    }

    /// The contents of a file from a byte on, and the byte at which they begin: the first, where the server takes no ranges.
    pub(super) fn contents(&self, url: &str, from: u64) -> Result<(Response<Body>, u64), Refusal> {
        // From the start, no range is needed: a file may be empty.
        let ask = if from > 0 { Ask::From(from) } else { Ask::All };
        let answer = self.follow(url, ask, |_| {})?;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            return Ok((answer, 0));
        }
        let begins = header(&answer, "content-range").and_then(|range| {
            range.trim_start_matches("bytes").trim().split('-').next()?.parse::<u64>().ok()
        });
        match begins {
            Some(at) if at == from => Ok((answer, from)),
            Some(0) => Ok((answer, 0)),
            _ => Err(Refusal::Passing(format!("asked for bytes from {from} on, it sent others"), None)),
        }
    }

    /// What a refusal means, and what to do about it.
    fn refusal(&self, response: &Response<Body>) -> Refusal {
        let (status, code) = (response.status(), header(response, "x-error-code").unwrap_or_default());
        let Self { id, page, revision, .. } = self;
        let number = status.as_u16();
        match (number, code.as_str(), self.token.is_some()) {
            (401 | 403, "GatedRepo", false) => Refusal::Final(format!(
                "{id} is gated ({number}): accept its terms at {page}, then set HF_TOKEN to a token of that account"
            )),
            (401 | 403, "GatedRepo", true) => Refusal::Final(format!(
                "{id} is gated ({number}), and the account of your token has not been let in: accept its terms at {page}"
            )),
            (401 | 403, "RepoNotFound", sent) | (404, "RepoNotFound", sent) => Refusal::Final(format!(
                "there is no {id} ({number}), or it is private: check its name{}",
                if sent { ", and what your token may read" } else { ", or set HF_TOKEN" }
            )),
            (404, "RevisionNotFound", _) => Refusal::Final(format!(
                "{id} has no revision `{revision}` (404): give a branch, a tag or a commit of {page}"
            )),
            (404, "EntryNotFound", _) => {
                Refusal::Final(format!("{id} has no such file at `{revision}` (404)"))
            }
            (404, ..) => Refusal::Final(format!(
                "nothing is there (404): check the name {id} and the revision `{revision}`"
            )),
            (401, _, true) => Refusal::Final(
                "the hub does not take your token (401): make a new one, and set HF_TOKEN".to_owned(),
            ),
            (401, _, false) => Refusal::Final(format!(
                "the hub asks for a token (401): set HF_TOKEN to one that may read {id}"
            )),
            (403, "DisabledRepo", _) => {
                Refusal::Final(format!("access to {id} is disabled on the hub (403): see {page}"))
            }
            (403, _, sent) => Refusal::Final(format!(
                "the hub refuses (403){}: see {page}",
                if sent {
                    ", although a token was sent"
                } else {
                    "; no token was sent, so set HF_TOKEN if you have one"
                }
            )),
            (408 | 429 | 500.., ..) => {
                let why = match number {
                    408 => "the hub gave up waiting for the request (408)".to_owned(),
                    429 => "the hub is asked too often (429)".to_owned(),
                    _ => format!("the hub is in trouble ({number})"),
                };
                Refusal::Passing(why, wait_asked_for(response))
            }
            _ => Refusal::Final(match header(response, "x-error-message") {
                Some(message) => format!("the hub answered with {status}: {message}"),
                None => format!("the hub answered with {status}"),
            }),
        }
    }
}

/// How long the hub asks to wait: `Retry-After` in seconds or until a date, else the seconds until more requests are allowed.
fn wait_asked_for(response: &Response<Body>) -> Option<Duration> {
    let from_now = |text: &str| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    };
    let after = header(response, "retry-after");
    let after = after.and_then(|text| text.parse().ok().map(Duration::from_secs).or_else(|| from_now(&text)));
    after.or_else(|| {
        let limits =
            header(response, "ratelimit").filter(|_| response.status() == StatusCode::TOO_MANY_REQUESTS)?;
        let left = limits.split(';').find_map(|word| word.trim().strip_prefix("t=")?.parse().ok());
        left.map(Duration::from_secs)
    })
}
