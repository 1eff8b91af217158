//! A server that behaves like the Hugging Face hub, for one repository of a model.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

/// The commit that every revision names.
const COMMIT: &str = "6a1f0c2d9be34f7788aa55cc11ee22dd33ff4400";

/// A repository with its server, which ends with the test's process.
pub struct FakeHub {
    /// For `HF_ENDPOINT`.
    pub endpoint: String,
    repository: Arc<Repository>,
}

/// What a hub does besides answering.
#[derive(Default)]
pub struct Manners {
    /// A file whose transfer stands still in the middle.
    pub stalls: Option<String>,
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
}

struct Repository {
    id: String,
    revision: String,
    files: BTreeMap<String, Vec<u8>>,
    manners: Manners,
    /// What was refused and cut so far.
    refused: AtomicUsize,
    cut: AtomicUsize,
    /// The address of the other server.
    elsewhere: OnceLock<String>,
    /// Heads of all requests, and whether they came to the other server.
    seen: Mutex<Vec<(String, bool)>>,
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl FakeHub {
    /// Serves the files of a folder as `id` at `revision`, and nothing else. The transfer of `stalls` never ends.
    ///
    /// # Panics
    /// When the folder cannot be read or no port is free.
    pub fn serve(folder: &Path, id: &str, revision: &str, stalls: Option<&str>) -> FakeHub {
        let stalls = stalls.map(str::to_owned);
        Self::with_manners(folder, id, revision, Manners { stalls, ..Manners::default() })
    }

    /// As [`serve`](Self::serve), as it likes.
    ///
    /// # Panics
    /// As [`serve`](Self::serve).
    pub fn with_manners(folder: &Path, id: &str, revision: &str, manners: Manners) -> FakeHub {
        let files = std::fs::read_dir(folder)
            .expect("folder of the model")
            .map(|entry| {
                let entry = entry.expect("file of the model");
                let name = entry.file_name().into_string().expect("a plain name");
                (name, std::fs::read(entry.path()).expect("file of the model"))
            })
            .collect();
        let repository = Arc::new(Repository {
            id: id.to_owned(),
            revision: revision.replace('/', "%2F"),
            files,
            manners,
            refused: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
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
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            let first = head.lines().next().unwrap_or_default().to_owned();
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push((head.clone(), elsewhere));
            self.answer(&path, &head.to_ascii_lowercase(), elsewhere, &mut stream)?;
        }
    }

    fn answer(&self, path: &str, head: &str, elsewhere: bool, stream: &mut TcpStream) -> std::io::Result<()> {
        let Repository { id, revision, manners, .. } = self;
        if let Some((status, lines)) = manners.refusals.get(self.refused.fetch_add(1, Ordering::SeqCst)) {
            return write!(stream, "HTTP/1.1 {status} No\r\n{lines}Content-Length: 0\r\n\r\n");
        }
        if path == format!("/api/models/{id}/revision/{revision}") {
            let siblings: Vec<_> = self.files.keys().map(|name| json!({"rfilename": name})).collect();
            let body = json!({"id": id, "sha": COMMIT, "siblings": siblings}).to_string();
            return write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
        let name = path.strip_prefix(&format!("/{id}/resolve/{revision}/")).unwrap_or_default();
        let Some(body) = self.files.get(name) else {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        };
        // Large files are named by their SHA-256, small ones by a git hash.
        let hash = sha256(body);
        let large = name.ends_with(".safetensors");
        let etag = if large { &hash[..] } else { &hash[..40] };
        if large && manners.elsewhere && !elsewhere {
            let place = self.elsewhere.get().map_or("", String::as_str);
            return write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: {place}{path}\r\nx-linked-etag: \"{etag}\"\r\nx-linked-size: {}\r\nx-repo-commit: {COMMIT}\r\nContent-Length: 0\r\n\r\n",
                body.len()
            );
        }
        // A transfer that was left goes on where it was.
        let range = head.split_once("range: bytes=").map(|(_, rest)| rest).filter(|_| !manners.whole);
        let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
        let (from, to) = range.unwrap_or("0-").split_once('-').unwrap_or(("0", ""));
        let from: usize = from.parse().unwrap_or(0);
        let to = digits(to).parse().unwrap_or(body.len() - 1);
        let mut part = body.get(from..=to).unwrap_or_default().to_vec();
        if manners.damages.as_deref() == Some(name) && from == 0 {
            part[0] ^= 1;
        }
        let status = match range {
            Some(_) => format!("206 Partial Content\r\nContent-Range: bytes {from}-{to}/{}", body.len()),
            None => "200 OK".to_owned(),
        };
        // What lies elsewhere has a name of its own there.
        let etag = if elsewhere { "other" } else { etag };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"{etag}\"\r\nx-repo-commit: {COMMIT}\r\n\r\n",
            part.len(),
        )?;
        if part.len() > 1 && manners.stalls.as_deref() == Some(name) {
            stream.write_all(&part[..part.len() / 2])?;
            stream.flush()?;
            std::thread::sleep(Duration::from_secs(600));
        }
        if let Some((cut, after, times)) = &manners.cuts
            && cut == name
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
