//! A server that behaves like the Hugging Face hub, for one repository of a model.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
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

struct Repository {
    id: String,
    revision: String,
    files: BTreeMap<String, Vec<u8>>,
    /// A file whose transfer stands still in the middle.
    stalls: Option<String>,
    /// First lines of all requests.
    seen: Mutex<Vec<String>>,
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
            revision: revision.to_owned(),
            files,
            stalls: stalls.map(str::to_owned),
            seen: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
        let served = Arc::clone(&repository);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                std::thread::spawn(move || served.answer_all(stream));
            }
        });
        FakeHub { endpoint, repository }
    }

    /// First lines of the requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.repository.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a request for a part of this name has come; does not count as a call of [`requests`](Self::requests).
    pub fn was_asked_for(&self, part: &str) -> bool {
        self.repository.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|r| r.contains(part))
    }
}

impl Repository {
    fn answer_all(&self, stream: TcpStream) -> std::io::Result<()> {
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
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(first);
            self.answer(&path, &head.to_ascii_lowercase(), &mut stream)?;
        }
    }

    fn answer(&self, path: &str, head: &str, stream: &mut TcpStream) -> std::io::Result<()> {
        let Repository { id, revision, .. } = self;
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
        // A transfer that was left goes on where it was.
        let range = head.split_once("range: bytes=").map_or("0-", |(_, rest)| rest);
        let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
        let (from, to) = range.split_once('-').unwrap_or(("0", ""));
        let from: usize = from.parse().unwrap_or(0);
        let to = digits(to).parse().unwrap_or(body.len() - 1);
        let part = body.get(from..=to).unwrap_or_default();
        // Large files are named by their SHA-256, small ones by a git hash.
        let hash = sha256(body);
        let etag = if name.ends_with(".safetensors") { &hash[..] } else { &hash[..40] };
        write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{to}/{}\r\nETag: \"{etag}\"\r\nx-repo-commit: {COMMIT}\r\n\r\n",
            part.len(),
            body.len()
        )?;
        if part.len() > 1 && self.stalls.as_deref() == Some(name) {
            stream.write_all(&part[..part.len() / 2])?;
            stream.flush()?;
            std::thread::sleep(Duration::from_secs(600));
        }
        stream.write_all(part)
    }
}
