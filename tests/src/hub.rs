//! A server that behaves like the Hugging Face hub, for one repository of a model.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// A repository with its server, which ends with the test's process.
pub struct FakeHub {
    /// For `HF_ENDPOINT`.
    pub endpoint: String,
    repository: Arc<Repository>,
}

/// What a hub does besides answering.
#[derive(Default)]
pub struct Manners {
    /// A file whose transfers stand still in the middle: so many of them.
    pub stalls: Option<(String, usize)>,
    /// A file whose transfers break off: so many of them, each after so many bytes.
    pub cuts: Option<(String, usize, usize)>,
    /// Whether contents of weights are to be had from another server.
    pub elsewhere: bool,
    /// Status and header lines of the first answers, in place of what was asked for.
    pub refusals: Vec<(u16, String)>,
    /// Whether files come whole, whatever part is asked for.
    pub whole: bool,
    /// A file that comes with another first byte than it has.
    pub damages: Option<String>,
    /// A folder whose files become the revision's next commit once it has been listed.
    pub moves: Option<PathBuf>,
    /// A file that is listed with this size.
    pub claims: Option<(String, u64)>,
}

/// The head of the next request of a connection, up to its empty line; nothing at the connection's end.
///
/// # Errors
/// The connection's.
pub fn request_head(reader: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

type Files = BTreeMap<String, Vec<u8>>;

fn files_of(folder: &Path) -> Files {
    let entries = std::fs::read_dir(folder).expect("folder of the model");
    entries
        .map(|entry| {
            let entry = entry.expect("file of the model");
            let name = entry.file_name().into_string().expect("a plain name");
            (name, std::fs::read(entry.path()).expect("file of the model"))
        })
        .collect()
}

/// The name of a repository's commit, by its place.
fn commit(place: usize) -> String {
    format!("{:040x}", 0x6a1f_0c2d_9be3_4f77 + place)
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Large files are kept outside git, and named by their SHA-256.
fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// What the hub names a file by.
fn etag(name: &str, body: &[u8]) -> String {
    if is_large(name) {
        return hex(&Sha256::digest(body));
    }
    hex(&Sha1::new().chain_update(format!("blob {}\0", body.len())).chain_update(body).finalize())
}

struct Repository {
    id: String,
    revision: String,
    /// The files of each commit; the revision names the last.
    commits: Mutex<Vec<Files>>,
    manners: Manners,
    /// What was refused, cut and stalled so far.
    refused: AtomicUsize,
    cut: AtomicUsize,
    stalled: AtomicUsize,
    /// The address of the other server.
    elsewhere: OnceLock<String>,
    /// Heads of all requests, and whether they came to the other server.
    seen: Mutex<Vec<(String, bool)>>,
}

impl FakeHub {
    /// Serves the files of a folder as `id` at `revision`, and nothing else. Transfers of `stalls` never end.
    ///
    /// # Panics
    /// When the folder cannot be read or no port is free.
    pub fn serve(folder: &Path, id: &str, revision: &str, stalls: Option<&str>) -> FakeHub {
        let stalls = stalls.map(|name| (name.to_owned(), usize::MAX));
        Self::with_manners(folder, id, revision, Manners { stalls, ..Manners::default() })
    }

    /// As [`serve`](Self::serve), as it likes.
    ///
    /// # Panics
    /// As [`serve`](Self::serve).
    pub fn with_manners(folder: &Path, id: &str, revision: &str, manners: Manners) -> FakeHub {
        let repository = Arc::new(Repository {
            id: id.to_owned(),
            revision: revision.replace('/', "%2F"),
            commits: Mutex::new(vec![files_of(folder)]),
            manners,
            refused: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            stalled: AtomicUsize::new(0),
            elsewhere: OnceLock::new(),
            seen: Mutex::default(),
        });
        let listen = |elsewhere: bool| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
            let served = Arc::clone(&repository);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let served = Arc::clone(&served);
                    std::thread::spawn(move || served.answer_all(stream, elsewhere));
                }
            });
            endpoint
        };
        let _ = repository.elsewhere.set(listen(true));
        FakeHub { endpoint: listen(false), repository }
    }

    /// Makes the files of a folder the revision's next commit.
    ///
    /// # Panics
    /// When the folder cannot be read.
    pub fn push(&self, folder: &Path) {
        self.repository.push(folder);
    }

    /// First lines of the requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        let first = |(head, _): (String, bool)| head.lines().next().unwrap_or_default().to_owned();
        self.heads().into_iter().map(first).collect()
    }

    /// Whole heads of the requests since the last call, and whether they came to the other server.
    pub fn heads(&self) -> Vec<(String, bool)> {
        std::mem::take(&mut *self.repository.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a request for a part of this name has come; does not count as a call of [`requests`](Self::requests).
    pub fn was_asked_for(&self, part: &str) -> bool {
        let seen = self.repository.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().any(|(head, _)| head.lines().next().is_some_and(|first| first.contains(part)))
    }
}

impl Repository {
    fn answer_all(&self, stream: TcpStream, elsewhere: bool) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        loop {
            let Some(head) = request_head(&mut reader)? else { return Ok(()) };
            let first = head.lines().next().unwrap_or_default().to_owned();
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push((head.clone(), elsewhere));
            self.answer(&path, &head.to_ascii_lowercase(), elsewhere, &mut stream)?;
        }
    }

    fn push(&self, folder: &Path) {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner).push(files_of(folder));
    }

    /// The last commit's name and files.
    fn last(&self) -> (String, Files) {
        let commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        (commit(commits.len() - 1), commits.last().cloned().unwrap_or_default())
    }

    /// The commit that a path's revision names, and the file it asks for.
    fn file(&self, path: &str) -> Option<(String, String, Vec<u8>)> {
        let rest = path.strip_prefix(&format!("/{}/resolve/", self.id))?;
        let (revision, name) = rest.split_once('/')?;
        let (commit, files) = if revision == self.revision {
            self.last()
        } else {
            let commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
            let place = (0..commits.len()).find(|place| commit(*place) == revision)?;
            (revision.to_owned(), commits[place].clone())
        };
        Some((commit, name.to_owned(), files.get(name)?.clone()))
    }

    fn listing(&self) -> String {
        let (commit, files) = self.last();
        let siblings: Vec<_> = files
            .iter()
            .map(|(name, body)| {
                let claimed = self.manners.claims.as_ref().filter(|(claimed, _)| claimed == name);
                let mut file = json!({
                    "rfilename": name,
                    "size": claimed.map_or(body.len() as u64, |(_, size)| *size),
                    "blobId": etag("", body),
                });
                if is_large(name) {
                    file["lfs"] = json!({"sha256": etag(name, body), "size": body.len(), "pointerSize": 134});
                }
                file
            })
            .collect();
        json!({"id": self.id, "sha": commit, "siblings": siblings}).to_string()
    }

    fn answer(&self, path: &str, head: &str, elsewhere: bool, stream: &mut TcpStream) -> std::io::Result<()> {
        let Repository { id, revision, manners, .. } = self;
        if let Some((status, lines)) = manners.refusals.get(self.refused.fetch_add(1, Ordering::SeqCst)) {
            return write!(stream, "HTTP/1.1 {status} No\r\n{lines}Content-Length: 0\r\n\r\n");
        }
        if path == format!("/api/models/{id}/revision/{revision}?blobs=true") {
            let body = self.listing();
            if let Some(folder) = &manners.moves {
                self.push(folder);
            }
            return write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
        let Some((commit, name, body)) = self.file(path) else {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        };
        let etag = etag(&name, &body);
        if is_large(&name) && manners.elsewhere && !elsewhere {
            let place = self.elsewhere.get().map_or("", String::as_str);
            return write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: {place}{path}\r\nx-linked-etag: \"{etag}\"\r\nx-linked-size: {}\r\nx-repo-commit: {commit}\r\nContent-Length: 0\r\n\r\n",
                body.len()
            );
        }
        // A transfer that was left goes on where it was.
        let range = head.split_once("range: bytes=").map(|(_, rest)| rest).filter(|_| !manners.whole);
        let from = range.and_then(|range| range.split('-').next()?.parse().ok()).unwrap_or(0);
        let mut part = body.get(from..).unwrap_or_default().to_vec();
        if manners.damages.as_ref() == Some(&name) && from == 0 {
            part[0] ^= 1;
        }
        let status = match range {
            Some(_) => {
                let (last, all) = (body.len() - 1, body.len());
                format!("206 Partial Content\r\nContent-Range: bytes {from}-{last}/{all}")
            }
            None => "200 OK".to_owned(),
        };
        // What lies elsewhere has a name of its own there.
        let etag = if elsewhere { "other" } else { &etag };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"{etag}\"\r\nx-repo-commit: {commit}\r\n\r\n",
            part.len(),
        )?;
        if head.starts_with("head ") {
            return Ok(());
        }
        if let Some((stalls, times)) = &manners.stalls
            && *stalls == name
            && self.stalled.fetch_add(1, Ordering::SeqCst) < *times
        {
            stream.write_all(&part[..part.len() / 2])?;
            stream.flush()?;
            std::thread::sleep(Duration::from_secs(600));
        }
        if let Some((cut, after, times)) = &manners.cuts
            && *cut == name
            && part.len() > *after
            && self.cut.fetch_add(1, Ordering::SeqCst) < *times
        {
            stream.write_all(&part[..*after])?;
            stream.flush()?;
            return stream.shutdown(Shutdown::Both);
        }
        stream.write_all(&part)
    }
}
